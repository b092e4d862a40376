//! From a container spec to the engine's words.

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, RestartPolicy, RestartPolicyNameEnum,
};
use driver::{ContainerSpec, Healthcheck, LogOptions};

use crate::labels::Identity;

const NANOS_PER_MILLI: u64 = 1_000_000;
/// The engine counts CPUs in billionths.
const NANO_CPUS_PER_CPU_MILLI: u64 = 1_000_000;
const BYTES_PER_MIB: u64 = 1 << 20;

/// What the engine is asked to create.
///
/// It never restarts or removes a container by itself: both are the planner's decisions. Capabilities stay at the
/// engine's default, because it is the workload's author who knows which it needs; gaining more of them is ruled out.
pub(crate) fn create_body(spec: &ContainerSpec, identity: &Identity) -> ContainerCreateBody {
    let memory = spec.memory_limit_mib.map(|mib| integer(mib.saturating_mul(BYTES_PER_MIB)));
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: spec.command.clone(),
        env: Some(spec.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        user: spec.user.clone(),
        labels: Some(identity.to_labels()),
        stop_signal: spec.stop_signal.clone(),
        healthcheck: spec.healthcheck.as_ref().map(healthcheck),
        host_config: Some(HostConfig {
            network_mode: spec.network.clone(),
            nano_cpus: spec.cpu_limit_millis.map(|cpu| integer(cpu.saturating_mul(NANO_CPUS_PER_CPU_MILLI))),
            memory,
            // The same number means no swap beside it: a container that pages slows down all of the host.
            memory_swap: memory,
            readonly_rootfs: Some(spec.read_only_root),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            auto_remove: Some(false),
            log_config: spec.log.as_ref().map(log_config),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn healthcheck(check: &Healthcheck) -> HealthConfig {
    let test = std::iter::once("CMD".to_owned()).chain(check.command.iter().cloned()).collect();
    HealthConfig {
        test: Some(test),
        interval: Some(integer(check.interval_ms.saturating_mul(NANOS_PER_MILLI))),
        timeout: Some(integer(check.timeout_ms.saturating_mul(NANOS_PER_MILLI))),
        retries: Some(i64::from(check.retries)),
        ..HealthConfig::default()
    }
}

fn log_config(log: &LogOptions) -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: Some(log.driver.clone()),
        config: Some(log.options.iter().map(|(name, value)| (name.clone(), value.clone())).collect()),
    }
}

/// The engine's integers are signed; one that is out of range is refused by the engine in its own words.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use driver::Generation;

    use super::*;

    fn identity() -> Identity {
        Identity {
            cluster: "demo".to_owned(),
            service: "web".to_owned(),
            instance: "one".to_owned(),
            generation: Generation::from_label("0123456789abcdef"),
        }
    }

    #[test]
    fn every_field_reaches_the_engine() {
        let spec = ContainerSpec {
            pull: driver::PullPolicy::Never,
            image: "web:3".to_owned(),
            command: Some(vec!["serve".to_owned(), "--fast".to_owned()]),
            environment: [("A".to_owned(), "1".to_owned()), ("B".to_owned(), String::new())].into(),
            network: Some("host".to_owned()),
            user: Some("65534:65534".to_owned()),
            cpu_limit_millis: Some(1_500),
            memory_limit_mib: Some(64),
            read_only_root: true,
            stop_signal: Some("SIGINT".to_owned()),
            stop_grace_ms: 1_000,
            log: Some(LogOptions {
                driver: "json-file".to_owned(),
                options: [("max-size".to_owned(), "1m".to_owned())].into(),
            }),
            healthcheck: Some(Healthcheck {
                command: vec!["/web".to_owned(), "check".to_owned()],
                interval_ms: 2_000,
                timeout_ms: 500,
                retries: 3,
            }),
            task_definition: None,
        };
        let body = create_body(&spec, &identity());
        assert_eq!(body.image.as_deref(), Some("web:3"));
        assert_eq!(body.cmd, spec.command);
        assert_eq!(body.entrypoint, None, "the image's own");
        assert_eq!(body.env, Some(vec!["A=1".to_owned(), "B=".to_owned()]));
        assert_eq!(body.user.as_deref(), Some("65534:65534"));
        assert_eq!(body.labels, Some(identity().to_labels()));
        assert_eq!(body.stop_signal.as_deref(), Some("SIGINT"));
        let check = body.healthcheck.expect("it was given");
        assert_eq!(check.test.as_deref(), Some(["CMD", "/web", "check"].map(str::to_owned).as_slice()));
        assert_eq!((check.interval, check.timeout), (Some(2_000_000_000), Some(500_000_000)));
        assert_eq!(check.retries, Some(3));
        let host = body.host_config.expect("it is always there");
        assert_eq!(host.network_mode.as_deref(), Some("host"));
        assert_eq!(host.nano_cpus, Some(1_500_000_000));
        assert_eq!((host.memory, host.memory_swap), (Some(67_108_864), Some(67_108_864)));
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
        assert_eq!(host.auto_remove, Some(false));
        assert_eq!(host.restart_policy.and_then(|policy| policy.name), Some(RestartPolicyNameEnum::NO));
        let log = host.log_config.expect("it was given");
        assert_eq!(log.typ.as_deref(), Some("json-file"));
        assert_eq!(log.config.expect("it was given")["max-size"], "1m");
    }

    #[test]
    fn what_is_not_given_is_the_engines_or_the_images_own() {
        let body = create_body(&ContainerSpec::default(), &identity());
        assert_eq!(body.env, Some(Vec::new()), "nothing of the scheduler's environment");
        assert_eq!((body.cmd, body.user, body.stop_signal), (None, None, None));
        assert_eq!(body.healthcheck, None);
        let host = body.host_config.expect("it is always there");
        assert_eq!((host.network_mode, host.log_config), (None, None));
        assert_eq!((host.nano_cpus, host.memory, host.memory_swap), (None, None, None));
        assert_eq!(host.readonly_rootfs, Some(false));
    }

    #[test]
    fn a_limit_out_of_range_stays_a_limit() {
        let spec = ContainerSpec { memory_limit_mib: Some(u64::MAX), ..ContainerSpec::default() };
        let host = create_body(&spec, &identity()).host_config.expect("it is always there");
        assert_eq!(host.memory, Some(i64::MAX));
    }
}
