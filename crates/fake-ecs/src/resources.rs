//! What a task takes of an instance, and what is taken there.

use std::collections::BTreeSet;

/// What a task takes. Of the memory it is the reservation where there is one ("that value is subtracted from the
/// available memory resources for the container instance where the container is placed. Otherwise, the value of
/// `memory` is used": <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html>), and
/// what the task says as a whole, where it says anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// CPU units: 1,024 are one vCPU.
    pub(crate) cpu: u64,
    /// MiB.
    pub(crate) memory: u64,
    /// Ports of the host.
    pub(crate) tcp: BTreeSet<u16>,
    pub(crate) udp: BTreeSet<u16>,
    /// Whether it has a network interface of its own (`awsvpc`).
    pub(crate) interface: bool,
}

/// What there is, or what is taken of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) cpu: u64,
    pub(crate) memory: u64,
    pub(crate) tcp: BTreeSet<u16>,
    pub(crate) udp: BTreeSet<u16>,
    pub(crate) interfaces: u64,
}

impl Taken {
    pub(crate) fn add(&mut self, needs: &Needs) {
        self.cpu += needs.cpu;
        self.memory += needs.memory;
        self.tcp.extend(&needs.tcp);
        self.udp.extend(&needs.udp);
        self.interfaces += u64::from(needs.interface);
    }

    pub(crate) fn give_back(&mut self, needs: &Needs) {
        self.cpu = self.cpu.saturating_sub(needs.cpu);
        self.memory = self.memory.saturating_sub(needs.memory);
        self.tcp.retain(|port| !needs.tcp.contains(port));
        self.udp.retain(|port| !needs.udp.contains(port));
        self.interfaces = self.interfaces.saturating_sub(u64::from(needs.interface));
    }

    /// The first resource that there is too little of, by its name in `RESOURCE:<name>`.
    pub(crate) fn lacks(
        &self,
        needs: &Needs,
        cpu: u64,
        memory: u64,
        interfaces: u64,
    ) -> Option<&'static str> {
        let lacking = [
            (self.cpu + needs.cpu > cpu, "CPU"),
            (self.memory + needs.memory > memory, "MEMORY"),
            (!self.tcp.is_disjoint(&needs.tcp) || !self.udp.is_disjoint(&needs.udp), "PORTS"),
            (self.interfaces + u64::from(needs.interface) > interfaces, "ENI"),
        ];
        lacking.into_iter().find_map(|(lacks, name)| lacks.then_some(name))
    }
}
