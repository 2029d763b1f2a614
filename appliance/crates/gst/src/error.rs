//! Why a worker's work cannot go on.

/// Its text is shown to the installer; it holds no secrets.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// GStreamer itself does not start.
    #[error("GStreamer does not start: {0}")]
    Init(gst::glib::Error),
    /// Elements that the work needs are not installed.
    #[error("missing GStreamer elements: {0}")]
    Missing(String),
    /// A setting that cannot work.
    #[error("{setting} is {got}: {remedy}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// Its value.
        got: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A capture device has no such mode.
    #[error("format is {wish}: the device has no such mode; it has {offered}")]
    Mode {
        /// What was asked for.
        wish: String,
        /// What there is.
        offered: String,
    },
    /// A control of a capture device that it does not have or take.
    #[error("controls.{name} is {got}: {problem}")]
    Control {
        /// Its name.
        name: String,
        /// The value that it should have.
        got: i64,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// No encoder works.
    #[error("cannot encode here: {0}")]
    NoEncoder(String),
    /// No decoder works.
    #[error("cannot decode here: {0}")]
    NoDecoder(String),
    /// A pipeline could not be built.
    #[error("cannot build the pipeline: {0}")]
    Build(#[from] gst::glib::BoolError),
    /// An element refused to start.
    #[error("the pipeline does not start: {0}")]
    Start(#[from] gst::StateChangeError),
    /// An element reported an error.
    #[error("{element}: {text}")]
    Element {
        /// Its name.
        element: String,
        /// What it said.
        text: String,
    },
    /// A camera, in words.
    #[error("{0}")]
    Camera(String),
    /// A camera does not let us in.
    #[error("{}", if *.had_login {
        "user name or password refused"
    } else {
        "the camera asks for a user name and password, and none is set"
    })]
    LoginRefused {
        /// Whether one was shown.
        had_login: bool,
    },
    /// A camera sends what no output carries, and this worker may not encode.
    #[error("the camera sends JPEG pictures: they have to be encoded")]
    NeedsEncoder,
    /// What comes is not what the camera described.
    #[error("the camera no longer sends {was}: its codec was changed, so it is asked anew")]
    OtherCodec {
        /// What it had described.
        was: String,
    },
    /// The source ended by itself.
    #[error("the source ended its stream")]
    Ended,
}

impl WorkError {
    /// Whether only other settings or software can help.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self,
            WorkError::Missing(_)
                | WorkError::Setting { .. }
                | WorkError::Mode { .. }
                | WorkError::Control { .. }
        )
    }

    /// Whether the same with an encoder will do.
    pub fn needs_encoder(&self) -> bool {
        matches!(self, WorkError::NeedsEncoder)
    }

    /// Whether a user name and password were refused, or are missing: trying them again may lock the account.
    pub fn is_login_refused(&self) -> bool {
        matches!(self, WorkError::LoginRefused { .. })
    }
}
