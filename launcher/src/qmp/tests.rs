//! Against a fake server that plays transcripts. The lines of `GREETING` and of the answers were
//! recorded from QEMU 10.0.2; the real thing is in `launcher/tests/qmp.rs`.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::*;

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "Debian 1:10.0.2+ds-2+deb13u1~bpo12+1"}, "capabilities": ["oob"]}}"#;
const RESUMED: &str =
    r#"{"timestamp": {"seconds": 1795257611, "microseconds": 915648}, "event": "RESUME"}"#;

/// A fake QEMU: a step of its transcript waits for a command (checking its name) or sends a line.
struct FakeQemu {
    stream: BufReader<UnixStream>,
}

enum Step<'a> {
    /// Read a command of this name and remember its id.
    Expect(&'a str),
    /// Send this text; `$ID` becomes the id of the command last read.
    Say(&'a str),
}

impl FakeQemu {
    /// A fake and the client's end of its socket.
    fn new() -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (
            Self {
                stream: BufReader::new(ours),
            },
            theirs,
        )
    }

    async fn say(&mut self, text: &str) {
        self.stream
            .get_mut()
            .write_all(text.as_bytes())
            .await
            .unwrap();
    }

    async fn heard(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn play(&mut self, steps: &[Step<'_>]) {
        let mut id = Value::Null;
        for step in steps {
            match step {
                Step::Expect(name) => {
                    let command = self.heard().await;
                    assert_eq!(command["execute"], *name);
                    id = command["id"].clone();
                }
                Step::Say(text) => {
                    let line = text.replace("$ID", &id.to_string());
                    self.say(&(line + "\r\n")).await;
                }
            }
        }
    }

    async fn greet(&mut self) {
        let answer = r#"{"return": {}, "id": $ID}"#;
        let steps = [
            Step::Say(GREETING),
            Step::Expect("qmp_capabilities"),
            Step::Say(answer),
        ];
        self.play(&steps).await;
    }
}

async fn connected() -> (FakeQemu, Qmp, Events, Greeting) {
    let (mut fake, stream) = FakeQemu::new();
    let ((), client) = tokio::join!(fake.greet(), Qmp::over(stream));
    let (qmp, events, greeting) = client.unwrap();
    (fake, qmp, events, greeting)
}

fn lost(error: &QmpError) -> &Broken {
    match error {
        QmpError::Lost { source } => source,
        other => panic!("expected a lost connection, got {other:?}"),
    }
}

#[tokio::test]
async fn the_greeting_tells_the_version() {
    let (_fake, _qmp, _events, greeting) = connected().await;
    assert_eq!((greeting.major, greeting.minor, greeting.micro), (10, 0, 2));
    assert!(greeting.package.starts_with("Debian"));
}

#[tokio::test]
async fn a_command_gets_its_answer_and_events_in_between_are_kept_in_order() {
    let (mut fake, qmp, mut events, _) = connected().await;
    let steps = [
        Step::Expect("cont"),
        Step::Say(RESUMED),
        Step::Say(r#"{"event": "FROM_THE_FUTURE", "data": {"x": [1, 2]}, "new-field": 7}"#),
        Step::Say(r#"{"return": {}, "id": $ID}"#),
    ];
    let ((), answer) = tokio::join!(fake.play(&steps), qmp.execute("cont", Value::Null));
    assert_eq!(answer.unwrap(), json!({}));
    let first = events.next().await.unwrap();
    assert_eq!(first.name, "RESUME");
    assert_eq!(
        first.timestamp,
        Timestamp {
            seconds: 1_795_257_611,
            microseconds: 915_648
        }
    );
    let second = events.next().await.unwrap();
    assert_eq!(
        (second.name.as_str(), &second.data["x"]),
        ("FROM_THE_FUTURE", &json!([1, 2]))
    );
}

#[tokio::test]
async fn answers_out_of_order_find_their_commands() {
    let (mut fake, qmp, _events, _) = connected().await;
    let server = async {
        let mut ids = HashMap::new();
        for _ in 0..2 {
            let command = fake.heard().await;
            ids.insert(
                command["execute"].as_str().unwrap().to_owned(),
                command["id"].clone(),
            );
        }
        for (name, value) in [("second", 2), ("first", 1)] {
            let line = json!({ "return": value, "id": ids[name] });
            fake.say(&format!("{line}\n")).await;
        }
    };
    let (first, second) = (
        qmp.execute("first", Value::Null),
        qmp.execute("second", json!({})),
    );
    let ((), first, second) = tokio::join!(server, first, second);
    assert_eq!((first.unwrap(), second.unwrap()), (json!(1), json!(2)));
}

#[tokio::test]
async fn arguments_are_sent_and_left_out_when_there_are_none() {
    let (mut fake, qmp, _events, _) = connected().await;
    let server = async {
        let with = fake.heard().await;
        fake.say(&format!("{}\n", json!({ "return": {}, "id": with["id"] })))
            .await;
        let without = fake.heard().await;
        fake.say(&format!(
            "{}\n",
            json!({ "return": {}, "id": without["id"] })
        ))
        .await;
        (with, without)
    };
    let client = async {
        qmp.execute("block_resize", json!({ "size": 1 }))
            .await
            .unwrap();
        qmp.execute("stop", Value::Null).await.unwrap();
    };
    let ((with, without), ()) = tokio::join!(server, client);
    assert_eq!(with["arguments"], json!({ "size": 1 }));
    assert!(without.get("arguments").is_none());
}

#[tokio::test]
async fn a_refusal_carries_class_and_description_and_the_connection_lives_on() {
    let (mut fake, qmp, _events, _) = connected().await;
    let steps = [
        Step::Expect("no-such"),
        Step::Say(
            r#"{"id": $ID, "error": {"class": "CommandNotFound", "desc": "The command no-such has not been found"}}"#,
        ),
        Step::Expect("stop"),
        Step::Say(r#"{"return": {}, "id": $ID}"#),
    ];
    let client = async {
        let refused = qmp.execute("no-such", Value::Null).await.unwrap_err();
        qmp.execute("stop", Value::Null).await.unwrap();
        refused
    };
    let ((), refused) = tokio::join!(fake.play(&steps), client);
    let QmpError::Refused {
        command,
        class,
        desc,
    } = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (command.as_str(), class.as_str()),
        ("no-such", "CommandNotFound")
    );
    assert_eq!(desc, "The command no-such has not been found");
}

#[tokio::test]
async fn a_lost_connection_fails_those_who_wait_and_those_who_come_later() {
    let (mut fake, qmp, mut events, _) = connected().await;
    let server = async {
        fake.heard().await;
        drop(fake);
    };
    let ((), waiting) = tokio::join!(server, qmp.execute("quit", Value::Null));
    assert!(matches!(
        lost(&waiting.unwrap_err()),
        Broken::Closed | Broken::Read { .. }
    ));
    assert!(events.next().await.is_none());
    assert!(matches!(events.lost(), QmpError::Lost { .. }));
    let later = qmp.execute("stop", Value::Null).await.unwrap_err();
    assert_eq!(later.reason(), "QmpLost");
}

#[tokio::test]
async fn a_line_without_end_is_refused_in_bounded_memory() {
    let (mut fake, qmp, mut events, _) = connected().await;
    let server = tokio::spawn(async move {
        let chunk = vec![b' '; 1 << 20];
        let mut sent = 0;
        while fake.stream.get_mut().write_all(&chunk).await.is_ok() {
            sent += chunk.len();
            assert!(sent <= 2 * MAX_LINE, "the client reads on for ever");
        }
    });
    assert!(events.next().await.is_none());
    let error = qmp.execute("stop", Value::Null).await.unwrap_err();
    assert!(matches!(lost(&error), Broken::LineTooLong), "{error:?}");
    server.await.unwrap();
}

#[tokio::test]
async fn garbage_and_answers_that_nobody_asked_for_end_the_connection() {
    for (line, malformed) in [
        ("HTTP/1.1 400 Bad Request", true),
        ("[1, 2]", true),
        (r#"{"event": 5}"#, true),
        (r#"{"return": {}, "id": 99}"#, false),
        (r#"{"return": {}}"#, false),
        (r#"{"id": 1}"#, false),
    ] {
        let (mut fake, _qmp, mut events, _) = connected().await;
        fake.say(&format!("{line}\n")).await;
        assert!(events.next().await.is_none(), "{line}");
        let error = events.lost();
        assert_eq!(
            matches!(lost(&error), Broken::Malformed { .. }),
            malformed,
            "{line}: {error:?}"
        );
    }
}

#[tokio::test]
async fn something_else_than_a_greeting_is_no_qemu() {
    let (mut fake, stream) = FakeQemu::new();
    let ((), client) = tokio::join!(fake.say("SSH-2.0-OpenSSH_9.2\r\n"), Qmp::over(stream));
    assert!(matches!(
        lost(&client.unwrap_err()),
        Broken::Malformed { .. }
    ));
}

#[tokio::test]
async fn the_connection_closes_with_its_last_user() {
    let (mut fake, qmp, events, _) = connected().await;
    drop(qmp.clone());
    drop((qmp, events));
    let mut rest = Vec::new();
    fake.stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_never_answered_times_out() {
    let (mut fake, qmp, _events, _) = connected().await;
    let (_, answer) = tokio::join!(fake.heard(), qmp.execute("stop", Value::Null));
    assert!(matches!(answer.unwrap_err(), QmpError::Timeout { .. }));
}
