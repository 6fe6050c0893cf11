//! What a process costs, as the kernel counts it.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{sched_getaffinity, sched_setaffinity};

use crate::failure::Failure;

/// A process that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(u32);

impl Process {
    /// The process `pid`, checked to be there and readable.
    pub(crate) fn new(pid: u32) -> Result<Self, Failure> {
        let process = Self(pid);
        process
            .cpu()
            .map_err(|error| Failure::Setup(format!("cannot measure process {pid}: {error}")))?;
        Ok(process)
    }

    /// The load tester itself.
    pub(crate) fn own() -> Self {
        Self(std::process::id())
    }

    /// What its threads had of the CPUs, summed.
    pub(crate) fn cpu(self) -> io::Result<Cpu> {
        let mut total = Cpu::default();
        for task in fs::read_dir(format!("/proc/{}/task", self.0))? {
            // A thread may end between being listed and being read.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let mut numbers = text.split_whitespace();
            total.used += Duration::from_nanos(number(numbers.next())?);
            total.waited += Duration::from_nanos(number(numbers.next())?);
        }
        Ok(total)
    }

    /// Bytes resident in memory.
    pub(crate) fn resident(self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Ok(number(line.and_then(|line| line.split_whitespace().next()))? * 1024)
    }

    /// Confines the process to the CPUs that another may run on.
    pub(crate) fn share_cpus_of(self, other: Self) -> io::Result<()> {
        let cpus = sched_getaffinity(Pid::from_raw(other.0.cast_signed()))?;
        Ok(sched_setaffinity(Pid::from_raw(self.0.cast_signed()), &cpus)?)
    }
}

/// Time of CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) used: Duration,
    /// Ready to run while something else did.
    pub(crate) waited: Duration,
}

/// Bytes that the kernel holds for all TCP sockets of the machine.
pub(crate) fn socket_memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let tcp = text.lines().find_map(|line| line.strip_prefix("TCP:"));
    let pages = tcp.and_then(|line| line.split_once("mem ")).map(|(_, pages)| pages.trim());
    Ok(number(pages)? * rustix::param::page_size() as u64)
}

fn number(text: Option<&str>) -> io::Result<u64> {
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no number where one belongs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_measure_itself() {
        let own = Process::own();
        let before = own.cpu().unwrap();
        let mut spin = 0u64;
        while own.cpu().unwrap().used <= before.used {
            spin = std::hint::black_box(spin + 1);
        }
        assert!(own.resident().unwrap() > 4096);
        assert!(own.share_cpus_of(own).is_ok());
    }

    #[test]
    fn a_process_that_is_not_there_is_refused() {
        assert!(matches!(Process::new(u32::MAX >> 1), Err(Failure::Setup(_))));
    }
}
