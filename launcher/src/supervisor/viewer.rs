//! The person in front of a run: the console on standard output, the keyboard on the console.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::{ConsoleMode, RunError};
use crate::console::{self, Console};

#[derive(Debug)]
pub(super) struct Viewer {
    screen: JoinHandle<()>,
    typist: Option<JoinHandle<()>>,
}

impl Viewer {
    pub(super) fn new(console: &Console, mode: ConsoleMode) -> Result<Self, RunError> {
        use ConsoleMode::{Interactive, Off, Stdout};

        let reader = console.reader();
        let screen = match mode {
            Off => tokio::spawn(async {}),
            Stdout | Interactive => tokio::spawn(async {
                if let Err(error) = console::copy_out(reader, tokio::io::stdout()).await {
                    tracing::warn!(%error, "the console is no longer shown");
                }
            }),
        };
        let typist = match mode {
            Off | Stdout => None,
            Interactive => {
                let step = "taking the terminal";
                let (keyboard, mut keys) = console::terminal::Keyboard::take()
                    .map_err(|source| RunError::Host { step, source })?;
                let input = console.input();
                Some(tokio::spawn(async move {
                    while let Some(typed) = keys.recv().await {
                        if input.send(typed).await.is_err() {
                            break;
                        }
                    }
                    drop(keyboard);
                }))
            }
        };
        Ok(Self { screen, typist })
    }

    /// Gives the terminal back, and the screen time to show the rest.
    pub(super) async fn finish(mut self, patience: Duration) {
        if let Some(typist) = self.typist.take() {
            typist.abort();
            drop(typist.await);
        }
        if tokio::time::timeout(patience, &mut self.screen)
            .await
            .is_err()
        {
            tracing::warn!("standard output takes no more; the console log has the rest");
            self.screen.abort();
        }
    }
}
