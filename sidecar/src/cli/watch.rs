//! `quorate watch`: what happens to a node.

use std::{process::ExitCode, time::SystemTime};

use clap::Args;
use futures_util::{StreamExt, stream};
use quorate::{ChildrenEvent, Client, DataEvent, Error, TreeEvent};
use serde::Serialize;
use tokio::{pin, select};

use super::{
    ensemble::Ensemble,
    exit::Failure,
    node::Data,
    output::{self, Format},
    signals::Stop,
};

/// Print what a node is, and what becomes of it, until Ctrl-C
///
/// Without --recursive: its data and its children, first as they are, then after each change; states in between may be
/// left out, the newest is not. With --recursive: every change at and below it; `resync` says that some may have been
/// missed.
#[derive(Args, Debug)]
pub(super) struct Watch {
    /// The node; it need not exist
    path: String,

    /// Everything below it too
    #[arg(short, long)]
    recursive: bool,

    /// End after this many lines
    #[arg(short = 'n', long, value_name = "N")]
    events: Option<u64>,

    #[command(flatten)]
    ensemble: Ensemble,
}

/// One line.
#[derive(Debug, Serialize)]
struct Line {
    time: String,
    event: &'static str,
    path: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<Vec<String>>,
}

impl Watch {
    pub(super) fn format(&self) -> Format {
        self.ensemble.output
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let mut stop = Stop::listen()?;
        self.ensemble.with_client(async |client| self.print(client, &mut stop).await).await
    }

    async fn print(&self, client: &Client, stop: &mut Stop) -> Result<ExitCode, Failure> {
        let lines = if self.recursive {
            client.watch(&self.path).recursive().map(|item| item.map(|event| self.of_tree(event))).left_stream()
        } else {
            let data = client.watch(&self.path).data().map(|item| item.map(|event| self.of_data(event)));
            let children = client.watch(&self.path).children();
            // Both streams say that there is no node; once is enough.
            let children = children.filter_map(async |item| item.map(|event| self.of_children(event)).transpose());
            stream::select(data, children).right_stream()
        };
        pin!(lines);
        let mut left = self.events.unwrap_or(u64::MAX);
        while left > 0 {
            let item = select! {
                biased;
                () = stop.told() => break,
                item = lines.next() => item,
            };
            match item {
                None => break,
                Some(Ok(line)) => {
                    self.say(&line)?;
                    left -= 1;
                }
                // The watch goes on after these: the node may be readable again, the ensemble reachable.
                Some(Err(error @ (Error::Timeout { .. } | Error::Unreachable { .. } | Error::SessionLost { .. }))) => {
                    eprintln!("{error}; trying again");
                }
                Some(Err(error)) => return Err(error.into()),
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn say(&self, line: &Line) -> std::io::Result<()> {
        match self.ensemble.output {
            Format::Json => output::json_line(line),
            Format::Table => output::line(&line.text()),
        }
    }

    fn of_data(&self, event: DataEvent) -> Line {
        match event {
            DataEvent::Value(node) => Line {
                data: Some((&*node.data).into()),
                version: Some(node.stat.version),
                ..Line::new("data", self.path.clone())
            },
            _ => Line::new("absent", self.path.clone()),
        }
    }

    fn of_children(&self, event: ChildrenEvent) -> Option<Line> {
        match event {
            ChildrenEvent::Set(list) => {
                Some(Line { children: Some(list.names), ..Line::new("children", self.path.clone()) })
            }
            _ => None,
        }
    }

    fn of_tree(&self, event: TreeEvent) -> Line {
        match event {
            TreeEvent::Created(path) => Line::new("created", path),
            TreeEvent::Changed(path) => Line::new("changed", path),
            TreeEvent::Deleted(path) => Line::new("deleted", path),
            _ => Line::new("resync", self.path.clone()),
        }
    }
}

impl Line {
    fn new(event: &'static str, path: String) -> Self {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        Self { time, event, path, data: None, version: None, children: None }
    }

    fn text(&self) -> String {
        let Self { time, event, path, data, version, children } = self;
        let mut text = format!("{time}  {event:<8}  {path}");
        if let Some(version) = version {
            text += &format!("  version {version}");
        }
        match data {
            // Quoted, so that it stays one line.
            Some(Data::Text(data)) => text += &format!("  {data:?}"),
            Some(Data::Bytes(data)) => text += &format!("  base64 {data}"),
            None => {}
        }
        if let Some(children) = children {
            text += &format!("  [{}]", children.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line() {
        let line = Line {
            time: "T".into(),
            event: "data",
            path: "/a".into(),
            data: Some(Data::Text("x\ny".into())),
            version: Some(2),
            children: None,
        };

        assert_eq!(line.text(), r#"T  data      /a  version 2  "x\ny""#);
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(json, r#"{"time":"T","event":"data","path":"/a","data":"x\ny","version":2}"#);
    }
}
