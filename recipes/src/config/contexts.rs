//! Which nodes an application's settings are read from, and which of them wins.

use crate::mirror::join;

/// How contexts are named; the defaults are Spring Cloud Zookeeper Config's.
#[derive(Debug, Clone)]
pub(super) struct Contexts {
    pub(super) root: String,
    pub(super) default_context: String,
    pub(super) separator: String,
    pub(super) application: String,
    pub(super) profiles: Vec<String>,
}

impl Default for Contexts {
    fn default() -> Self {
        Self {
            root: "/config".into(),
            default_context: "application".into(),
            separator: ",".into(),
            application: "application".into(),
            profiles: Vec::new(),
        }
    }
}

impl Contexts {
    /// The paths, the strongest first: the application's before those of all, and of each the last profile
    /// before the first, and that before none.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut names = vec![&self.application];
        if self.default_context != self.application {
            names.push(&self.default_context);
        }
        let of = |name: &String| {
            let profiles = self.profiles.iter().rev().map(Some).chain([None]);
            profiles.map(|profile| self.path(name, profile.map(String::as_str))).collect::<Vec<_>>()
        };
        names.into_iter().flat_map(of).collect()
    }

    pub(super) fn path(&self, name: &str, profile: Option<&str>) -> String {
        match profile {
            Some(profile) => join(&self.root, &format!("{name}{}{profile}", self.separator)),
            None => join(&self.root, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_context_is_the_applications_with_the_last_profile() {
        let contexts =
            Contexts { application: "orders".into(), profiles: vec!["a".into(), "b".into()], ..Contexts::default() };

        let expected = [
            "/config/orders,b",
            "/config/orders,a",
            "/config/orders",
            "/config/application,b",
            "/config/application,a",
            "/config/application",
        ];
        assert_eq!(contexts.paths(), expected);
    }

    #[test]
    fn the_default_application_has_one_row_of_contexts() {
        assert_eq!(Contexts::default().paths(), ["/config/application"]);
    }
}
