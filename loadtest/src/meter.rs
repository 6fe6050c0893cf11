//! Who used the CPUs, and whether the figures are about the server at all.

use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::failure::Failure;
use crate::process::{Cpu, Process};

/// Reads what load tester and server cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    server: Option<Process>,
}

impl Meter {
    /// Measures the load tester, and the server if its process is known.
    pub(crate) fn new(pid: Option<u32>) -> Result<Self, Failure> {
        Ok(Self { server: pid.map(Process::new).transpose()? })
    }

    pub(crate) fn read(self) -> io::Result<Reading> {
        Ok(Reading {
            at: Instant::now(),
            generator: Process::own().cpu()?,
            server: self.server.map(Process::cpu).transpose()?,
        })
    }

    /// Bytes resident in the server, 0 if it is not known.
    pub(crate) fn resident(self) -> io::Result<u64> {
        self.server.map_or(Ok(0), Process::resident)
    }
}

/// Counters at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    at: Instant,
    generator: Cpu,
    server: Option<Cpu>,
}

impl Reading {
    /// What was used since an earlier one.
    pub(crate) fn since(&self, before: &Self) -> Usage {
        let seconds = (self.at - before.at).as_secs_f64();
        let cores = |after: Duration, before: Duration| {
            after.saturating_sub(before).as_secs_f64() / seconds
        };
        let server = self.server.zip(before.server);
        let waited = |(after, before): (Cpu, Cpu)| cores(after.waited, before.waited);
        let generator_cpu = cores(self.generator.used, before.generator.used);
        let waited_cpu = waited((self.generator, before.generator)) + server.map_or(0.0, waited);
        Usage {
            seconds,
            generator_cpu,
            server_cpu: server.map(|(after, before)| cores(after.used, before.used)),
            waited_cpu,
            limit: limit(generator_cpu, waited_cpu),
        }
    }
}

/// CPU time, in cores.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Usage {
    pub(crate) seconds: f64,
    pub(crate) generator_cpu: f64,
    /// Only if the server's process is known.
    pub(crate) server_cpu: Option<f64>,
    /// What the two were ready to use and did not get.
    pub(crate) waited_cpu: f64,
    /// Why the figures say less about the server than it seems, if they do.
    pub(crate) limit: Option<&'static str>,
}

impl Usage {
    /// The server's CPU time for each of `count`, in microseconds.
    pub(crate) fn server_us_per(&self, count: u64) -> Option<f64> {
        Some(self.server_cpu? * self.seconds * 1e6 / count.max(1) as f64)
    }

    /// Whether the server could have done more.
    pub(crate) fn server_has_room(&self) -> bool {
        self.server_cpu.is_some_and(|cpu| cpu < FULL)
    }

    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let cores = |cpu: f64| format!("{:.0} % of a core", cpu * 100.0);
        let mut rows = vec![("load tester CPU", cores(self.generator_cpu))];
        rows.extend(self.server_cpu.map(|cpu| ("server CPU", cores(cpu))));
        rows.push(("waited for a CPU", cores(self.waited_cpu)));
        rows.extend(self.limit.map(|limit| ("LIMIT", limit.to_owned())));
        rows
    }
}

fn limit(generator_cpu: f64, waited_cpu: f64) -> Option<&'static str> {
    if generator_cpu > FULL {
        Some("the load tester used all of its core; give it a faster one, or less to do")
    } else if waited_cpu > BUSY {
        Some("server or load tester waited for a CPU; use an idle machine, and a core for each")
    } else {
        None
    }
}

/// Of a core: what counts as all of it.
const FULL: f64 = 0.9;

/// Of a core: more waiting than this shows in the figures.
const BUSY: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_what_came_in_between() {
        let cpu = |used, waited| Cpu {
            used: Duration::from_millis(used),
            waited: Duration::from_millis(waited),
        };
        let at = Instant::now();
        let before = Reading { at, generator: cpu(100, 0), server: Some(cpu(1000, 10)) };
        let at = at + Duration::from_secs(2);
        let after = Reading { at, generator: cpu(1100, 20), server: Some(cpu(2500, 30)) };
        let usage = after.since(&before);
        assert_eq!((usage.generator_cpu, usage.server_cpu), (0.5, Some(0.75)));
        assert_eq!(usage.waited_cpu, 0.02);
        assert_eq!(usage.server_us_per(1000), Some(1500.0));
        assert_eq!(usage.limit, None);
    }

    #[test]
    fn a_full_core_and_a_busy_machine_are_limits() {
        assert_eq!(limit(0.9, 0.05), None);
        assert!(limit(0.91, 0.0).is_some_and(|limit| limit.contains("its core")));
        assert!(limit(0.5, 0.06).is_some_and(|limit| limit.contains("waited")));
    }
}
