//! User data: what an EC2 instance is given at its first start, and becomes an ECS container instance by.
//!
//! A template of `cloud-config/` with [`Values`] filled in is rendered by [`render`]; what comes out, or what somebody
//! has written by hand, is checked by [`check`]. User data is a place where mistakes are silent: a host leaves out what
//! it does not understand, and nobody sees that a service is missing before the cluster lacks an instance. So whatever
//! a host would leave out is refused here.
//!
//! Three forms are known ([`Form`]): coreos-cloudinit's, cloud-init's, and Ignition's with Butane as its source.
//! Each is read by a module of its own into the same `Contents`, files and units, on which the rest works.

pub mod auth_data;
mod butane;
mod cloud_init;
mod contents;
mod coreos;
mod form;
mod ignition;
mod mask;
mod problem;
mod settings;
pub mod source;
mod template;
mod text;
mod units;
pub mod values;
mod write_files;
mod yaml;

pub use problem::{Problem, Refused};
pub use values::Values;

pub use form::Form;

/// Fills a template in, and checks what comes out. Butane becomes Ignition on the way.
///
/// # Errors
///
/// Everything that is wrong with the template, with how the values go with it, or with what comes out.
pub fn render(template: &str, values: &Values) -> Result<String, Refused> {
    let filled = template::fill(template, values).map_err(Refused::one)?;
    let user_data = match Form::of(&filled).map_err(Refused::one)? {
        Form::Butane => {
            let mut problems = text::unseen(None, &filled);
            problems.extend(text::unended(&filled));
            Refused::unless_empty(problems)?;
            butane::to_ignition(&filled).map_err(Refused::one)?
        }
        Form::CoreOs | Form::CloudInit | Form::Ignition => filled,
    };
    check(&user_data)?;
    Ok(user_data)
}

/// Checks user data as an instance would be given it, and tells what it is.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn check(user_data: &str) -> Result<Form, Refused> {
    let form = Form::of(user_data).map_err(Refused::one)?;
    let mut problems: Vec<Problem> = text::too_large(user_data).into_iter().collect();
    // In JSON white space says nothing; there it matters in the files and units, which are encoded.
    let encodes = form == Form::Ignition;
    if !encodes {
        problems.extend(text::unseen(None, user_data));
        problems.extend(text::unended(user_data));
    }
    problems.extend(text::left_in(None, user_data));
    let contents = match form {
        Form::CoreOs => coreos::read(user_data),
        Form::CloudInit => cloud_init::read(user_data),
        Form::Ignition => ignition::read(user_data),
        Form::Butane => Err(vec![Problem::Butane]),
    };
    match contents {
        Ok(contents) => {
            for (place, text) in contents.texts().filter(|_| encodes) {
                problems.extend(text::unseen(Some(place), text));
                problems.extend(text::left_in(Some(place), text));
            }
            problems.extend(settings::problems(&contents));
            problems.extend(units::problems(&contents.units));
        }
        Err(more) => problems.extend(more),
    }
    Refused::unless_empty(problems)?;
    Ok(form)
}
