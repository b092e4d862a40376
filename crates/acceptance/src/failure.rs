//! What is left of a check that fails: all that was seen in a file, a few lines of it on stderr, and what the check said
//! once more at their end, where whoever reads the end of the output sees it.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// How many of a section's last lines are shown.
const LAST_SHOWN: usize = 5;

/// How many of a section's last warnings and errors are shown.
const TROUBLE_SHOWN: usize = 10;

/// How many lines at each end of what the check said are shown: an assertion tells first what it is about, and last
/// what it compared.
const MESSAGE_ENDS_SHOWN: usize = 12;

thread_local! {
    /// What the last panic of this thread said.
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Remembers from now on what a panic says, for [`report`].
pub(crate) fn remember_messages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            MESSAGE.set(Some(panic.to_string()));
            before(panic);
        }));
    });
}

/// If this thread is panicking, keeps what is named and said by `sections` in a file, and shows where that is, some of
/// it, and why the check has failed. To be called as what saw it is dropped.
pub(crate) fn report(sections: impl FnOnce() -> Vec<(String, String)>) {
    if !std::thread::panicking() {
        return;
    }
    let sections = sections();
    for (name, text) in &sections {
        let (shown, all) = (worth_showing(text), text.lines().count());
        eprintln!("--- {name}: {} of {all} lines", shown.len());
        for line in shown {
            eprintln!("{line}");
        }
    }
    let file = file();
    match append(&file, &sections) {
        Ok(()) => eprintln!("--- all of it: {}", file.display()),
        Err(error) => eprintln!("--- all of it could not be kept in {}: {error}", file.display()),
    }
    if let Some(message) = MESSAGE.with_borrow(Clone::clone) {
        eprintln!("--- failed: {}", abridged(&message));
    }
}

/// The last warnings and errors, and the last lines, in their order.
fn worth_showing(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.len().saturating_sub(LAST_SHOWN);
    let trouble: Vec<usize> = (0..last).filter(|&index| is_trouble(lines[index])).collect();
    let trouble = &trouble[trouble.len().saturating_sub(TROUBLE_SHOWN)..];
    trouble.iter().copied().chain(last..lines.len()).map(|index| lines[index]).collect()
}

/// Whether it is a warning, an error, or none of the log's own lines, as of a panic.
fn is_trouble(line: &str) -> bool {
    match serde_json::from_str::<serde_json::Value>(line) {
        Ok(line) => matches!(line["level"].as_str(), Some("WARN" | "ERROR")),
        Err(_) => true,
    }
}

/// Without the backtrace that an error ends with where `RUST_BACKTRACE` is set, and without the middle, where that is
/// long.
fn abridged(message: &str) -> String {
    let message = message.split("\n\nStack backtrace:").next().unwrap_or(message);
    let lines: Vec<&str> = message.lines().collect();
    let Some(left_out) = lines.len().checked_sub(2 * MESSAGE_ENDS_SHOWN).filter(|&lines| lines > 0) else {
        return message.to_owned();
    };
    let (first, last) = (&lines[..MESSAGE_ENDS_SHOWN], &lines[lines.len() - MESSAGE_ENDS_SHOWN..]);
    format!("{}\n… {left_out} lines, all of them above …\n{}", first.join("\n"), last.join("\n"))
}

/// Of this check in this run: a check's thread has its name.
fn file() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    // Without the dots, if it exists.
    let target = target.canonicalize().unwrap_or(target);
    let check = std::thread::current().name().unwrap_or("unnamed").replace("::", ".");
    target.join("failed-checks").join(format!("{check}-{}.txt", std::process::id()))
}

fn append(file: &Path, sections: &[(String, String)]) -> std::io::Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    for (name, text) in sections {
        writeln!(file, "--- {name}\n{}", text.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: usize, level: impl Fn(usize) -> &'static str) -> String {
        (0..lines).map(|line| format!(r#"{{"level":"{}","message":"{line}"}}"#, level(line)) + "\n").collect()
    }

    #[test]
    fn of_a_log_its_trouble_and_its_end_are_shown() {
        let one_error = log(200, |line| if line == 20 { "ERROR" } else { "INFO" });
        let shown = worth_showing(&one_error);
        let lines: Vec<&str> = one_error.lines().collect();
        assert_eq!(shown, [20, 195, 196, 197, 198, 199].map(|line| lines[line]));

        let nothing_else = log(200, |_| "WARN");
        let shown = worth_showing(&nothing_else);
        assert_eq!(shown.len(), TROUBLE_SHOWN + LAST_SHOWN);
        assert!(shown.last().is_some_and(|line| line.contains("199")), "{shown:?}");

        assert_eq!(worth_showing("thread 'main' panicked\n"), ["thread 'main' panicked"]);
        assert_eq!(worth_showing(""), [""; 0]);
    }

    #[test]
    fn a_long_message_keeps_its_ends() {
        assert_eq!(abridged("one\ntwo"), "one\ntwo");
        assert_eq!(abridged("one\n\nStack backtrace:\n   0: main"), "one");
        let long: Vec<String> = (0..500).map(|line| format!("line {line}")).collect();
        let shown = abridged(&long.join("\n"));
        assert!(shown.starts_with("line 0\n") && shown.ends_with("\nline 499"), "{shown}");
        assert_eq!(shown.lines().count(), 2 * MESSAGE_ENDS_SHOWN + 1);
        assert!(shown.contains("476 lines"), "{shown}");
    }

    #[test]
    fn what_a_panic_says_is_remembered() {
        remember_messages();
        let ended = std::thread::spawn(|| {
            let caught = std::panic::catch_unwind(|| panic!("seven is not eight"));
            assert!(caught.is_err());
            MESSAGE.with_borrow(Clone::clone)
        });
        let message = ended.join().unwrap().unwrap();
        assert!(message.ends_with("seven is not eight"), "{message}");
    }
}
