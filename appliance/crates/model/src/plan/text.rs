//! A plan in words, for a person.

use super::{Action, Form, Leg, Load, MountpointPlan, Output, Overload, Plan, Rendition, Step};
use std::fmt;

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Once it is known what comes, so is what happens.
        let action = match self.action {
            Action::PassOrTranscode if self.from == self.to && self.from != Form::Unknown => Action::Pass,
            Action::PassOrTranscode if matches!(self.from, Form::Coded(_)) => Action::Transcode,
            action => action,
        };
        f.write_str(action.name())?;
        match action {
            Action::Pass | Action::Repackage => write!(f, " {}", self.from)?,
            Action::PassOrTranscode if self.to == Form::Unknown => {}
            Action::Transcode | Action::PassOrTranscode | Action::Silence => {
                write!(f, " {} -> {}", self.from, self.to)?;
            }
            Action::Off | Action::Absent | Action::Unable => {}
        }
        if let Some(encoder) = &self.encoder {
            write!(f, " by {encoder}")?;
        }
        if !self.cost.is_none() {
            write!(f, " ({})", self.cost)?;
        }
        write!(f, ": {}", self.reason)?;
        if let Some(remedy) = &self.remedy {
            write!(f, " [{remedy}]")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rendition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  ~{}", self.name)?;
        writeln!(f, "    video  {}", self.video)?;
        writeln!(f, "    audio  {}", self.audio)
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.output {
            Output::Players => f.write_str("  to players")?,
            Output::Push { id, url, enabled } => {
                write!(f, "  to {url} ({id}{})", if *enabled { "" } else { ", off" })?;
            }
        }
        match &self.rendition {
            Some(rendition) => writeln!(f, ", from ~{rendition}")?,
            None => writeln!(f)?,
        }
        writeln!(f, "    video  {}", self.video)?;
        writeln!(f, "    audio  {}", self.audio)
    }
}

impl fmt::Display for MountpointPlan {
    /// Without its name; lines are indented.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  priority {}", self.priority)?;
        writeln!(f, "  video    {}", self.source.video)?;
        writeln!(f, "  audio    {}", self.source.audio)?;
        for rendition in &self.renditions {
            write!(f, "{rendition}")?;
        }
        for leg in &self.legs {
            write!(f, "{leg}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.measured {
            return write!(f, "costs are not known here: a running gateway tries the encoders");
        }
        let (used, limit) = (self.used, self.limit);
        write!(f, "takes {} of {} % processor time (100 is one core)", used.cpu_percent, limit.cpu_percent)?;
        if limit.sessions > 0 {
            write!(f, ", {} of {} hardware encoder sessions", used.sessions, limit.sessions)?;
        }
        Ok(())
    }
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mountpoint)?;
        if let Some(rendition) = &self.rendition {
            write!(f, "~{rendition}")?;
        }
        write!(f, " (priority {}): {}", self.priority, self.reason)
    }
}

/// The last lines of a plan: what it costs and what does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    /// What it costs.
    pub load: &'a Load,
    /// What does not fit.
    pub over: &'a [Overload],
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "encoding {}", self.load)?;
        for over in self.over {
            writeln!(f, "  too much: {over}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, mountpoint) in &self.mountpoints {
            writeln!(f, "{name}\n{mountpoint}")?;
        }
        write!(f, "{}", Summary { load: &self.load, over: &self.over })
    }
}
