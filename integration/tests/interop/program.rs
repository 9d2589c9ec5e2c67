//! Somebody else's program at work: what it says is read line by line, and it can be told things.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

/// A program that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(240);

/// A program that runs. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    said: Vec<String>,
    directory: TempDir,
}

impl Program {
    pub(crate) fn start(name: &str, mut command: Command) -> Result<Self> {
        let directory = TempDir::with_prefix("quorate-program-")?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(fs::File::create(directory.path().join("stderr"))?);
        let mut command = tokio::process::Command::from(command);
        let mut child = command.kill_on_drop(true).spawn().with_context(|| format!("starting {name}"))?;
        let input = child.stdin.take().context("its input")?;
        let output = BufReader::new(child.stdout.take().context("its output")?).lines();
        Ok(Self { name: name.into(), child, input, output, said: Vec::new(), directory })
    }

    /// Waits until it says a line that begins so, and returns the rest of it.
    pub(crate) async fn says(&mut self, start: &str) -> Result<String> {
        loop {
            match timeout(PATIENCE, self.output.next_line()).await {
                Ok(Ok(Some(line))) => {
                    self.said.push(line.clone());
                    if let Some(rest) = line.strip_prefix(start) {
                        return Ok(rest.trim().to_owned());
                    }
                    if line.starts_with("FAILED") {
                        bail!("{}", self.story(&format!("did not say {start:?}")));
                    }
                }
                Ok(Ok(None)) => bail!("{}", self.story(&format!("ended without saying {start:?}"))),
                Ok(Err(error)) => return Err(error).context("reading what a program says"),
                Err(_elapsed) => bail!("{}", self.story(&format!("does not say {start:?}"))),
            }
        }
    }

    pub(crate) async fn tell(&mut self, line: &str) -> Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await.context("telling a program something")
    }

    /// Waits until it has ended well.
    pub(crate) async fn succeeds(mut self) -> Result<Vec<String>> {
        let ended = async {
            while let Some(line) = self.output.next_line().await? {
                self.said.push(line);
            }
            self.child.wait().await
        };
        let status = timeout(PATIENCE, ended).await;
        match status {
            Ok(status) => {
                let status = status?;
                ensure!(status.success(), "{}", self.story(&format!("ended with {status}")));
                Ok(self.said)
            }
            Err(_elapsed) => bail!("{}", self.story("does not end")),
        }
    }

    fn story(&self, what: &str) -> String {
        let errors = fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default();
        let errors: Vec<_> = errors.lines().collect();
        let shown = &errors[errors.len().saturating_sub(60)..];
        format!("{} {what}. It said:\n{}\nand for errors:\n{}", self.name, self.said.join("\n"), shown.join("\n"))
    }
}

/// A file of `integration/interop`.
pub(crate) fn source(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "interop", path].iter().collect()
}
