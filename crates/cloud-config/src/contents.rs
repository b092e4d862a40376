//! What user data puts on a host, whatever its form.

/// The files and units of user data.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// In their order.
    pub(crate) files: Vec<File>,
    /// In their order; among them those that are written as files.
    pub(crate) units: Vec<Unit>,
}

/// A file.
#[derive(Debug)]
pub(crate) struct File {
    /// Absolute.
    pub(crate) path: String,
    /// Decoded.
    pub(crate) text: String,
}

/// A systemd unit.
#[derive(Debug)]
pub(crate) struct Unit {
    /// With its type: `amazon-ecs-agent.service`.
    pub(crate) name: String,
    /// None if the host brings it, and it is only started or added to.
    pub(crate) text: Option<String>,
    /// What is added to it: names ending in `.conf`, and texts.
    pub(crate) drop_ins: Vec<(String, String)>,
}

/// Where units are files.
const UNIT_DIRECTORY: &str = "/etc/systemd/system/";

impl Contents {
    /// Takes a file in; one where systemd looks for units becomes a unit or a drop-in too.
    pub(crate) fn add_file(&mut self, path: String, text: String) {
        if let Some(name) = path.strip_prefix(UNIT_DIRECTORY) {
            match name.split_once(".d/") {
                Some((unit, drop_in)) => self.add_unit(Unit {
                    name: unit.to_owned(),
                    text: None,
                    drop_ins: vec![(drop_in.to_owned(), text)],
                }),
                None => {
                    self.add_unit(Unit { name: name.to_owned(), text: Some(text), drop_ins: Vec::new() });
                }
            }
            return;
        }
        self.files.push(File { path, text });
    }

    /// Takes a unit in, or what is added to one that is there.
    pub(crate) fn add_unit(&mut self, unit: Unit) {
        match self.units.iter_mut().find(|known| known.name == unit.name) {
            Some(known) => {
                known.text = unit.text.or(known.text.take());
                known.drop_ins.extend(unit.drop_ins);
            }
            None => self.units.push(unit),
        }
    }

    /// All texts, each with where it is.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let files = self.files.iter().map(|file| (file.path.as_str(), file.text.as_str()));
        let units =
            self.units.iter().filter_map(|unit| unit.text.as_deref().map(|text| (unit.name.as_str(), text)));
        let drop_ins = self
            .units
            .iter()
            .flat_map(|unit| unit.drop_ins.iter().map(|(_, text)| (unit.name.as_str(), text.as_str())));
        files.chain(units).chain(drop_ins)
    }
}
