//! Four-letter words: a connection that begins with one is answered in plain text and closed.

use std::time::Duration;

use super::{ZookeeperService, connection::FrameStream};
use crate::config::FourLetterWord;

mod listings;
mod metrics;
mod server;

/// Whoever asks takes the answer soon, or never.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A word, as the first four bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(FourLetterWord);

impl Word {
    /// `None` for anything else, which then is the length of a frame.
    pub(super) fn of(bytes: [u8; 4]) -> Option<Self> {
        FourLetterWord::of(std::str::from_utf8(&bytes).ok()?).map(Self)
    }
}

/// Answers a word in one write.
pub(super) async fn answer(Word(word): Word, stream: &mut FrameStream, service: &ZookeeperService) {
    let text = if service.settings.words.allow(word) {
        text(word, service)
    } else {
        format!("{word} is not executed because it is not in the whitelist.\n")
    };
    // The one who asked may have gone.
    let _ = stream.send(text.as_bytes(), ANSWER_WITHIN).await;
    stream.finish().await;
}

fn text(word: FourLetterWord, service: &ZookeeperService) -> String {
    use FourLetterWord as W;

    // These say something also of a member that does not serve.
    match word {
        W::Ruok => return "imok".into(),
        W::Envi => return server::environment(),
        W::Gtmk => return "0".into(),
        W::Isro => return server::read_only(service).into(),
        _ => {}
    }
    if !service.is_serving() && service.read_only().is_none() {
        return "This ZooKeeper instance is not currently serving requests\n".into();
    }
    match word {
        W::Srvr => server::summary(service, ""),
        W::Stat => server::summary(service, &listings::clients(service)),
        W::Mntr => metrics::all(service),
        W::Conf => server::configuration(service),
        W::Dirs => server::directories(service),
        W::Hash => server::digest(service),
        W::Cons => listings::connections(service),
        W::Dump => listings::sessions(service),
        W::Wchs => listings::watch_summary(service),
        W::Wchc => listings::watches_by_session(service),
        W::Wchp => listings::watches_by_path(service),
        W::Crst => {
            service.connections.reset_connections();
            "Connection stats reset.\n".into()
        }
        W::Srst => {
            service.connections.reset();
            metrics::reset(service);
            "Server stats reset.\n".into()
        }
        W::Ruok | W::Envi | W::Gtmk | W::Isro => String::new(),
    }
}
