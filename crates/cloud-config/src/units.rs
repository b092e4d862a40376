//! Units, judged by `systemd-analyze verify`.
//!
//! It runs in a directory that holds the units and nothing of this machine's: what a host brings is stood in for. So
//! it judges the same everywhere, whatever runs here.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use crate::contents::Unit;
use crate::mask::Mask;
use crate::problem::Problem;

/// Units that every host brings: systemd's own, which all units depend on, and those of Docker, ECS and cloud-init. A
/// unit that depends on any other is refused, unless the user data brings that one too.
const HOST_UNITS: [&str; 16] = [
    "basic.target",
    "cloud-final.service",
    "cloud-init.target",
    "containerd.service",
    "docker.service",
    "docker.socket",
    "ecs.service",
    "multi-user.target",
    "network-online.target",
    "network.target",
    "shutdown.target",
    "sockets.target",
    "sysinit.target",
    "systemd-sysctl.service",
    "timers.target",
    "umount.target",
];

/// What stands in for a service or socket of a host.
const STAND_IN_SERVICE: &str = "[Service]\nExecStart=/bin/true\n";
const STAND_IN_SOCKET: &str = "[Socket]\nListenStream=/run/stand-in.sock\n";
const STAND_IN: &str = "[Unit]\n";

/// What systemd-analyze says of a command that is on the host and not here.
const NOT_HERE: &str = "is not executable: No such file or directory";

/// It takes some 50 ms; after this, in ms, something is wrong with it.
const LIMIT_MS: u64 = 30_000;

/// How often it is asked whether it has ended, in ms.
const POLL_MS: u64 = 5;

/// The types of unit that user data may bring.
const TYPES: [&str; 7] = ["service", "socket", "target", "timer", "path", "mount", "slice"];

/// What systemd-analyze says against the units.
pub(crate) fn problems(units: &[Unit]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = units.iter().filter_map(name_problem).collect();
    if problems.is_empty() && !units.is_empty() {
        match verify(units) {
            Ok(said) => {
                let texts = units.iter().flat_map(|unit| {
                    unit.text.iter().chain(unit.drop_ins.iter().map(|(_, text)| text)).map(String::as_str)
                });
                let mask = Mask::of(&texts.collect::<Vec<_>>().join("\n"));
                problems.extend(said.iter().map(|line| Problem::Unit(mask.apply(line))));
            }
            Err(why) => problems.push(Problem::UnitsUnchecked(why)),
        }
    }
    problems
}

/// A name that systemd would not take, or that would leave the directory.
fn name_problem(unit: &Unit) -> Option<Problem> {
    let is_plain = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte))
    };
    let is_drop_in =
        |name: &str| is_plain(name) && name.rsplit_once('.').is_some_and(|(_, kind)| kind == "conf");
    let name_is_right =
        is_plain(&unit.name) && unit.name.rsplit_once('.').is_some_and(|(_, kind)| TYPES.contains(&kind));
    if !name_is_right {
        return Some(Problem::Unit(format!(
            "{:?}: not a unit's name: letters, digits and any of ':-_.\\@', and one of the types {}",
            unit.name,
            TYPES.join(", ")
        )));
    }
    let (wrong, _) = unit.drop_ins.iter().find(|(name, _)| !is_drop_in(name))?;
    Some(Problem::Unit(format!(
        "{}: {wrong:?}: systemd reads no drop-in whose name does not end in .conf",
        unit.name
    )))
}

/// The lines that systemd-analyze prints, less those about commands that are not on this machine.
fn verify(units: &[Unit]) -> Result<Vec<String>, String> {
    let directory = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    write(units, directory.path()).map_err(|error| format!("{}: {error}", directory.path().display()))?;
    let mut command = Command::new("systemd-analyze");
    command
        .args(["verify", "--man=no", "--"])
        .args(units.iter().map(|unit| directory.path().join(&unit.name)))
        .env("SYSTEMD_UNIT_PATH", directory.path())
        .env("LC_ALL", "C")
        .env("SYSTEMD_LOG_LEVEL", "warning")
        .env("SYSTEMD_COLORS", "0")
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let (is_content, said) = run(command)?;
    let here = format!("{}/", directory.path().display());
    let lines: Vec<String> =
        said.lines().filter(|line| !line.trim().is_empty()).map(|line| line.replace(&here, "")).collect();
    let against: Vec<String> = lines.iter().filter(|line| !line.contains(NOT_HERE)).cloned().collect();
    if lines.is_empty() && !is_content {
        return Err("systemd-analyze refuses them and does not say why".to_owned());
    }
    Ok(against)
}

fn write(units: &[Unit], directory: &Path) -> io::Result<()> {
    let brought: BTreeSet<&str> =
        units.iter().filter(|unit| unit.text.is_some()).map(|unit| unit.name.as_str()).collect();
    let stood_in = HOST_UNITS.iter().copied().chain(units.iter().map(|unit| unit.name.as_str()));
    for name in stood_in.filter(|name| !brought.contains(name)) {
        let text = match name.rsplit_once('.') {
            Some((_, "service")) => STAND_IN_SERVICE,
            Some((_, "socket")) => STAND_IN_SOCKET,
            _ => STAND_IN,
        };
        fs::write(directory.join(name), text)?;
    }
    for unit in units {
        if let Some(text) = &unit.text {
            fs::write(directory.join(&unit.name), text)?;
        }
        let drop_ins = directory.join(format!("{}.d", unit.name));
        for (name, text) in &unit.drop_ins {
            fs::create_dir_all(&drop_ins)?;
            fs::write(drop_ins.join(name), text)?;
        }
    }
    Ok(())
}

/// Whether a command succeeds, and what it says on its standard error.
fn run(mut command: Command) -> Result<(bool, String), String> {
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            "systemd-analyze is not on this machine; on Debian or Ubuntu it is in the package systemd"
                .to_owned()
        }
        _ => format!("systemd-analyze: {error}"),
    })?;
    // Read beside the wait: it would block on a full pipe.
    let mut stderr = child.stderr.take().expect("its standard error is a pipe");
    let reader = thread::spawn(move || {
        let mut said = Vec::new();
        stderr.read_to_end(&mut said).map(|_| String::from_utf8_lossy(&said).into_owned())
    });
    let until = Instant::now() + Duration::from_millis(LIMIT_MS);
    let status = loop {
        match child.try_wait().map_err(|error| format!("systemd-analyze: {error}"))? {
            Some(status) => break status,
            None if Instant::now() >= until => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("systemd-analyze has not ended within {LIMIT_MS} ms"));
            }
            None => thread::sleep(Duration::from_millis(POLL_MS)),
        }
    };
    let said = reader
        .join()
        .expect("reading does not panic")
        .map_err(|error| format!("systemd-analyze: {error}"))?;
    Ok((status.success(), said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<String> {
        let unit = Unit { name: "a.service".to_owned(), text: Some(text.to_owned()), drop_ins: Vec::new() };
        problems(&[unit]).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn what_systemd_would_take_is_taken() {
        let none: [&str; 0] = [];
        assert_eq!(
            said(
                "[Unit]\nRequires=docker.service\nAfter=docker.service network-online.target\n\
                 [Service]\nRestart=always\nExecStartPre=-/usr/bin/docker-that-is-on-the-host kill x\n\
                 ExecStart=/usr/bin/docker-that-is-on-the-host run --env='A={\"b\":\"c\"}' --hostname=%H x\n\
                 [Install]\nWantedBy=multi-user.target\n"
            ),
            none
        );
    }

    #[test]
    fn what_systemd_would_leave_out_or_refuse_is_refused() {
        for (text, why) in [
            ("[Service]\nExecStart=/bin/true\nRestrat=always\n", "unit a.service:3: Unknown key"),
            ("[Service]\nExecStart=/bin/true\nRestart=allways\n", "unit a.service:3: Failed to parse"),
            ("[Servce]\nExecStart=/bin/true\n", "unit a.service:1: Unknown section"),
            ("[Service]\nExecStartPre=/bin/true\n", "Service has no ExecStart="),
            ("[Service]\nExecStart=true 'unbalanced\n", "unit a.service:2: "),
            ("[Unit]\nRequires=dokcer.service\n[Service]\nExecStart=/bin/true\n", "dokcer.service not found"),
        ] {
            let said = said(text);
            assert!(said.iter().any(|line| line.contains(why)), "{text}: {said:?}");
        }
    }

    #[test]
    fn a_drop_in_is_judged_with_what_it_is_added_to() {
        let drop_in = |text: &str, name: &str| {
            problems(&[Unit {
                name: "ecs.service".to_owned(),
                text: None,
                drop_ins: vec![(name.to_owned(), text.to_owned())],
            }])
        };
        assert!(drop_in("[Service]\nExecStartPre=/bin/true\n", "a.conf").is_empty());
        assert_eq!(drop_in("[Service]\nExecStartPer=/bin/true\n", "a.conf").len(), 1);
        assert_eq!(drop_in("[Service]\nExecStartPre=/bin/true\n", "a").len(), 1);
    }

    #[test]
    fn names_stay_in_the_directory() {
        for name in ["../a.service", "a/b.service", "a", "a.conf", ".service", "a b.service"] {
            let unit =
                Unit { name: name.to_owned(), text: Some("[Unit]\n".to_owned()), drop_ins: Vec::new() };
            let problem = name_problem(&unit).expect(name).to_string();
            assert!(problem.contains("not a unit's name"), "{problem}");
        }
    }
}
