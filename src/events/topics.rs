use std::fmt::Display;

/// Where on the broker everything lies: one prefix a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
}

impl Topics {
    /// `prefix` without a slash at its end, for instance `ckaad/berlin/line-3/press`.
    ///
    /// # Errors
    /// A sentence, when the prefix cannot be a topic to publish at.
    pub fn new(prefix: &str) -> Result<Topics, String> {
        let bad = |why: &str| Err(format!("the topic prefix {prefix:?} {why}"));
        match prefix {
            p if p.is_empty() || p.split('/').any(str::is_empty) => bad("has an empty level"),
            p if p.contains(['+', '#', '\0']) => bad("contains a wildcard, `+` or `#`, or a zero byte"),
            p if p.starts_with('$') => bad("begins with `$`, which belongs to the broker"),
            p if p.len() > 512 => bad("is longer than 512 bytes"),
            p => Ok(Topics { prefix: p.to_owned() }),
        }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn state(&self) -> String {
        format!("{}/state", self.prefix)
    }

    pub fn health(&self) -> String {
        format!("{}/health", self.prefix)
    }

    pub fn camera_state(&self, camera: &str) -> String {
        self.camera(camera, "state")
    }

    pub fn anomaly(&self, camera: &str) -> String {
        self.camera(camera, "anomaly")
    }

    pub fn heatmap(&self, camera: &str) -> String {
        self.camera(camera, "heatmap")
    }

    pub fn result(&self, camera: &str) -> String {
        self.camera(camera, "result")
    }

    pub fn part_verdict(&self, station: &str) -> String {
        format!("{}/part/{station}/verdict", self.prefix)
    }

    pub fn model_state(&self, model: &str) -> String {
        format!("{}/model/{model}/state", self.prefix)
    }

    /// What commands are subscribed to by.
    pub fn commands(&self) -> String {
        format!("{}/cmd/+/+", self.prefix)
    }

    /// Operation and id of a command's topic.
    pub fn command<'a>(&self, topic: &'a str) -> Option<(&'a str, &'a str)> {
        topic.strip_prefix(&self.prefix)?.strip_prefix("/cmd/")?.split_once('/')
    }

    pub fn command_result(&self, operation: &str, id: &str) -> String {
        format!("{}/cmd/{operation}/{id}/result", self.prefix)
    }

    fn camera(&self, name: &str, leaf: impl Display) -> String {
        format!("{}/camera/{name}/{leaf}", self.prefix)
    }
}
