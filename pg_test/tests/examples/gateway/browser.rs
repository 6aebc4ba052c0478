//! Browsers: WebSockets that one thread reads, so that a thousand of them answer pings.

use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::thread;
use std::time::Duration;

use pg_presence_test::{wait_for, wait_until};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, HandshakeError, Message, WebSocket};
use uuid::Uuid;

use super::Gateway;

/// A socket; its connection is closed without a word when it is dropped.
pub struct Browser(Arc<Mutex<State>>);

struct State {
    socket: WebSocket<TcpStream>,
    messages: Vec<Value>,
    /// The code of the gateway's farewell; as in a browser, 1005 for one without.
    code: Option<u16>,
    has_ended: bool,
}

impl Browser {
    /// Opens a socket for a page of this origin; fails with the status of the answer.
    pub fn open(gateway: &Gateway, origin: &str) -> Result<Browser, u16> {
        let stream = TcpStream::connect(&gateway.address).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let url = format!("ws://{}/socket", gateway.address);
        let mut request = url.into_client_request().expect("a request");
        request
            .headers_mut()
            .insert("Origin", origin.parse().expect("a header"));
        let socket = match tungstenite::client(request, stream) {
            Ok((socket, _)) => socket,
            Err(HandshakeError::Failure(Error::Http(answer))) => return Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        };
        socket.get_ref().set_nonblocking(true).expect("an option");
        let state = Arc::new(Mutex::new(State {
            socket,
            messages: Vec::new(),
            code: None,
            has_ended: false,
        }));
        read_along(Arc::downgrade(&state));
        Ok(Browser(state))
    }

    /// Opens a socket with this first message.
    pub fn greet(gateway: &Gateway, hello: &Value) -> Browser {
        let browser = Browser::open(gateway, &format!("http://{}", gateway.address)).expect("a socket");
        browser.say(hello);
        browser
    }

    /// Opens a socket for a user, who starts a session.
    pub fn log_in(gateway: &Gateway, user: &str) -> Browser {
        Browser::greet(gateway, &json!({ "user": user }))
    }

    /// Opens a socket with the token of a session.
    pub fn resume(gateway: &Gateway, token: &str) -> Browser {
        Browser::greet(gateway, &json!({ "token": token }))
    }

    /// Opens a socket that follows everybody, of a user who is no part of what is tested.
    pub fn observe(gateway: &Gateway) -> Browser {
        let browser = Browser::log_in(gateway, "observer");
        browser.session();
        browser.say(&json!({ "follow": null }));
        // From then on it is told of changes: the gateway itself may have begun to follow later than it has bound.
        browser.wait_for("who is online", |message| {
            (message["live"] == json!(true)).then_some(())
        });
        browser
    }

    pub fn say(&self, message: &Value) {
        let mut state = self.0.lock().unwrap();
        // What is not sent now is sent by whoever reads; what cannot be sent shows in how the socket ends.
        let _ = state.socket.send(Message::text(message.to_string()));
    }

    /// Waits until the session is bound, and returns its user and its token.
    pub fn session(&self) -> (Uuid, String) {
        let session = self.wait_for("the session", |message| message.get("session").cloned());
        let text = |name: &str| session[name].as_str().expect("text").to_owned();
        (text("user_id").parse().expect("a uuid"), text("token"))
    }

    /// Waits for a message of which this returns something.
    pub fn wait_for<T>(&self, what: &str, read: impl Fn(&Value) -> Option<T>) -> T {
        wait_for(what, || {
            let state = self.0.lock().unwrap();
            assert!(!state.has_ended, "the socket was closed with {:?}", state.code);
            state.messages.iter().find_map(&read)
        })
    }

    /// The users and statuses of the changes that it has been told of.
    pub fn changes(&self) -> Vec<(Uuid, String)> {
        let state = self.0.lock().unwrap();
        let changes = state
            .messages
            .iter()
            .filter_map(|message| message["changed"].as_array());
        let text = |change: &Value, name: &str| change[name].as_str().expect("text").to_owned();
        let changes = changes.flatten();
        changes
            .map(|change| (text(change, "user_id").parse().expect("a uuid"), text(change, "status")))
            .collect()
    }

    /// The statuses of a user that it has been told of.
    pub fn statuses_of(&self, user: Uuid) -> Vec<String> {
        let of_user = self.changes().into_iter().filter(|(of, _)| *of == user);
        of_user.map(|(_, status)| status).collect()
    }

    pub fn is_open(&self) -> bool {
        let state = self.0.lock().unwrap();
        !state.has_ended && state.code.is_none()
    }

    /// Waits until the gateway closes the socket, and returns its code, if it has said one.
    pub fn closed(&self) -> Option<u16> {
        wait_until("the end of the socket", || self.0.lock().unwrap().has_ended);
        self.0.lock().unwrap().code
    }

    /// Closes it as a browser does, and waits until the gateway has closed it, too.
    pub fn close(self) {
        let _ = self.0.lock().unwrap().socket.close(None);
        assert_eq!(self.closed(), Some(1005), "an answer to a farewell without a code");
    }

    /// Whether the connection still takes what is sent.
    pub fn can_send(&self) -> bool {
        match self.0.lock().unwrap().socket.send(Message::Ping(Default::default())) {
            Ok(()) | Err(Error::WriteBufferFull(_)) => true,
            Err(Error::Io(error)) => error.kind() == ErrorKind::WouldBlock,
            Err(_) => false,
        }
    }

    /// Reads nothing any more.
    pub fn stop_reading(&self) {
        READ.lock()
            .unwrap()
            .retain(|state| !state.ptr_eq(&Arc::downgrade(&self.0)));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Ok(state) = self.0.lock() {
            let _ = state.socket.get_ref().shutdown(Shutdown::Both);
        }
    }
}

static READ: Mutex<Vec<Weak<Mutex<State>>>> = Mutex::new(Vec::new());

fn read_along(state: Weak<Mutex<State>>) {
    static READER: LazyLock<()> = LazyLock::new(|| {
        rlimit::increase_nofile_limit(10_000).expect("room for many sockets");
        thread::spawn(|| {
            loop {
                READ.lock().unwrap().retain(|state| match state.upgrade() {
                    Some(state) => state.lock().unwrap().read(),
                    None => false,
                });
                thread::sleep(Duration::from_millis(5));
            }
        });
    });
    LazyLock::force(&READER);
    READ.lock().unwrap().push(state);
}

impl State {
    /// Reads what has arrived; returns whether more may arrive.
    fn read(&mut self) -> bool {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => self.messages.push(serde_json::from_str(&text).expect("JSON")),
                Ok(Message::Close(frame)) => self.code = Some(frame.map_or(1005, |frame| frame.code.into())),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    // What could not be sent before, as an answer to a ping.
                    let _ = self.socket.flush();
                    return true;
                }
                Err(_) => {
                    self.has_ended = true;
                    return false;
                }
            }
        }
    }
}
