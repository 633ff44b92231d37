//! A real browser without a window: Chromium, driven over HTTP by its WebDriver. Each test has one of its own.
//!
//! Nothing is looked at twice from here: a script in the page looks at each frame, and answers when what is waited for is there.

use crate::common::{Lines, PATIENCE, Process, ask};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use std::{net::SocketAddr, process::Command, time::Instant};

/// Why no browser can be started here, if none can.
pub fn obstacle() -> Option<String> {
    let lacks = |program: &&str| Command::new(program).arg("--version").output().is_err();
    ["chromedriver", "chromium"].iter().find(|program| lacks(program)).map(|program| format!("there is no `{program}`"))
}

pub struct Browser {
    _driver: Process,
    /// The driver's output. It would end if it could not write that.
    _out: Lines,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// Starts one and opens the page that is at this address.
    pub fn open(page: SocketAddr) -> Self {
        let browser = Self::start();
        browser.request("POST", "/url", &json!({ "url": format!("http://{page}/") }));
        browser
    }

    fn start() -> Self {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0");
        let (driver, out) = Process::spawn(command);
        let (out, deadline) = (Lines::of(out), Instant::now() + PATIENCE);
        let port = loop {
            let line = out.next(deadline).expect("the driver says where it listens");
            let port = line.strip_prefix("ChromeDriver was started successfully on port ");
            if let Some(port) = port {
                break port.trim_end_matches('.').parse::<u16>().unwrap();
            }
        };
        let address = ([127, 0, 0, 1], port).into();
        // The page is our own, so it needs no sandbox, which root and many containers cannot have.
        let chromium = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"];
        let wanted = json!({
            "goog:chromeOptions": { "binary": "/usr/bin/chromium", "args": chromium },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": PATIENCE.as_millis() as u64 - 5_000 },
        });
        let mut browser = Self { _driver: driver, _out: out, address, session: String::new() };
        let started = browser.request("POST", "", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session = format!("/{}", started["sessionId"].as_str().unwrap());
        browser
    }

    /// The answer to a command of this session.
    fn request(&self, method: &str, command: &str, body: &Value) -> Value {
        let body = body.to_string();
        let request = format!(
            "{method} /session{}{command} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.session,
            body.len()
        );
        let answer = ask(self.address, &request);
        let mut said: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(answer.status, 200, "{body}: {}: {}", said["value"]["error"], said["value"]["message"]);
        said["value"].take()
    }

    /// What a script gives, which runs in the page.
    pub fn run(&self, script: &str) -> Value {
        self.request("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression in the page is true or the like. Gives its value.
    pub fn until(&self, expression: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; (function look() {{ const value = {expression}; value ? done(value) : requestAnimationFrame(look); }})();"
        );
        self.request("POST", "/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Waits until the text of an element contains this.
    pub fn until_shown(&self, selector: &str, text: &str) {
        self.until(&format!("document.querySelector({selector:?})?.textContent.includes({text:?})"));
    }

    /// Waits until so many elements are on the page.
    pub fn until_count(&self, selector: &str, count: usize) {
        self.until(&format!("document.querySelectorAll({selector:?}).length === {count}"));
    }

    pub fn text(&self, selector: &str) -> String {
        self.run(&format!("return document.querySelector({selector:?}).textContent")).as_str().unwrap().to_owned()
    }

    pub fn count(&self, selector: &str) -> u64 {
        self.run(&format!("return document.querySelectorAll({selector:?}).length")).as_u64().unwrap()
    }

    /// Clicks where an element is. It fails if another one covers it.
    pub fn click(&self, selector: &str) {
        self.of_element(selector, "click", &json!({}));
    }

    /// Types into an element.
    pub fn press(&self, selector: &str, keys: &str) {
        self.of_element(selector, "value", &json!({ "text": keys }));
    }

    fn of_element(&self, selector: &str, command: &str, body: &Value) {
        let found = self.request("POST", "/element", &json!({ "using": "css selector", "value": selector }));
        let id = found.as_object().unwrap().values().next().unwrap().as_str().unwrap();
        self.request("POST", &format!("/element/{id}/{command}"), body);
    }

    /// A command of Chromium's own protocol, for what WebDriver does not have.
    pub fn chromium(&self, command: &str, parameters: &Value) -> Value {
        self.request("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// Has the page believe that its reader prefers this.
    pub fn prefer(&self, feature: &str, value: &str) {
        let features = json!({ "features": [{ "name": feature, "value": value }] });
        self.chromium("Emulation.setEmulatedMedia", &features);
    }

    /// Makes the window so large, in pixels of the page, on a phone or not.
    pub fn resize(&self, width: u64, height: u64, mobile: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.chromium("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What the browser has said on its console since this was asked last.
    pub fn console(&self) -> Vec<String> {
        let said = self.request("POST", "/se/log", &json!({ "type": "browser" }));
        said.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// A picture of the page, as PNG.
    pub fn picture(&self) -> Vec<u8> {
        let picture = self.request("GET", "/screenshot", &json!({}));
        BASE64_STANDARD.decode(picture.as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Only its driver can end it: by itself it would stay.
        let end = format!("DELETE /session{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", self.session);
        if !self.session.is_empty() {
            ask(self.address, &end);
        }
    }
}
