//! Which rank this process is, by what the program that started it has left in the environment.

use super::World;

/// What starts one process for each rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// `torchrun`, and whatever sets the same variables, as `train --nproc` does.
    Torchrun,
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpiexec` of MPICH and of Intel MPI.
    Mpich,
    /// `srun`.
    Slurm,
}

impl Launcher {
    /// The name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Torchrun => "torchrun",
            Self::OpenMpi => "mpirun",
            Self::Mpich => "mpiexec",
            Self::Slurm => "srun",
        }
    }
}

/// Where this process stands among ranks that something has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// What started them.
    pub launcher: Launcher,
    /// This rank among all.
    pub world: World,
    /// What this start of the job is called, alike on every rank and fit for a file's name; `None` where nothing tells.
    pub job: Option<String>,
}

/// Why the environment does not say which rank this is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// Some of a launcher's variables are there, some are not.
    #[error(
        "{set} without {missing}: a rank needs all of them; set these as well, or unset the others to train without ranks"
    )]
    Missing {
        /// What is there, with values.
        set: String,
        /// Names of what is not.
        missing: String,
    },
    /// A variable does not hold what it must.
    #[error("{name}={value}: expected {expected}")]
    Value {
        /// The variable.
        name: String,
        /// What it holds.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Variables that cannot hold at once.
    #[error("{values} do not fit together: {why}")]
    Apart {
        /// The variables, with values.
        values: String,
        /// What they must do.
        why: String,
    },
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Placement {
    /// What the variables that `lookup` knows say; `None` where nothing has started ranks.
    ///
    /// A launcher may have been started by another one, so the innermost is asked first: `torchrun`, then `mpirun`, then `srun`.
    /// A batch script of Slurm without `srun` is no rank, whatever its allocation could hold.
    ///
    /// # Errors
    /// [`EnvironmentError`], which names the variables.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, EnvironmentError> {
        let lookup: Lookup<'_> = &|name| lookup(name).filter(|value| !value.is_empty());
        for family in [&TORCHRUN, &OPEN_MPI, &MPICH] {
            if family.marks.iter().any(|mark| lookup(mark).is_some()) {
                return family.read(lookup).map(Some);
            }
        }
        if lookup(SLURM_SIZE).is_some() {
            return slurm(lookup).map(Some);
        }
        Ok(None)
    }

    /// As [`Self::read`], of this process.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of_process() -> Result<Option<Self>, EnvironmentError> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// The number of this rank's GPU among those that the process sees, of which `lookup` knows by `CUDA_VISIBLE_DEVICES`: the
    /// rank's number on its node, or the only one where each rank is given one of its own, as `srun --gpus-per-task=1` does.
    ///
    /// # Errors
    /// [`EnvironmentError::Apart`] where the node's ranks outnumber the GPUs that they see.
    pub fn gpu(&self, lookup: impl Fn(&str) -> Option<String>) -> Result<usize, EnvironmentError> {
        let (rank, ranks) = (self.world.local_rank(), self.world.local_size());
        let Some(list) = lookup(VISIBLE) else { return Ok(rank) };
        match list.split(',').filter(|name| !name.trim().is_empty()).count() {
            1 => Ok(0),
            seen if seen < ranks => Err(EnvironmentError::Apart {
                values: format!("{VISIBLE}={list} and {ranks} ranks on this node"),
                why: "every rank needs a GPU of its own".into(),
            }),
            _ => Ok(rank),
        }
    }
}

const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// The variables of one kind of launcher.
struct Family {
    launcher: Launcher,
    /// Any of these tells that it is this launcher.
    marks: &'static [&'static str],
    /// Rank, ranks, rank on the node, ranks on the node.
    names: [&'static str; 4],
    /// What together names this start of the job.
    job: &'static [&'static str],
    /// How ranks come to be numbered node by node.
    in_order: &'static str,
}

const TORCHRUN: Family = Family {
    launcher: Launcher::Torchrun,
    marks: &["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"],
    names: ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"],
    job: &["TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT"],
    in_order: "start as many ranks on every node",
};

const OPEN_MPI: Family = Family {
    launcher: Launcher::OpenMpi,
    marks: &["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
    names: [
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ],
    job: &["PMIX_NAMESPACE"],
    in_order: "start as many ranks on every node, with mpirun --map-by slot",
};

/// Under `srun --mpi=pmi2`, only `PMI_RANK` and `PMI_SIZE` are there, and Slurm's own variables tell more.
const MPICH: Family = Family {
    launcher: Launcher::Mpich,
    marks: &["MPI_LOCALRANKID", "MPI_LOCALNRANKS"],
    names: ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"],
    job: &["SLURM_JOB_ID", "SLURM_RESTART_COUNT"],
    in_order: "start as many ranks on every node, one node after the other",
};

impl Family {
    fn read(&self, lookup: Lookup<'_>) -> Result<Placement, EnvironmentError> {
        let [rank, size, local_rank, local_size] = numbers(self.names, lookup)?;
        let world = world(rank, size, local_size).filter(|world| world.local_rank() == local_rank);
        let world = world.ok_or_else(|| apart(&self.names, lookup, self.in_order))?;
        Ok(Placement { launcher: self.launcher, world, job: job(self.job, lookup) })
    }
}

/// The ranks of the job step; those of the job are there in a batch script too, where no rank was started.
const SLURM_SIZE: &str = "SLURM_STEP_NUM_TASKS";
const SLURM_PER_NODE: &str = "SLURM_STEP_TASKS_PER_NODE";

fn slurm(lookup: Lookup<'_>) -> Result<Placement, EnvironmentError> {
    let [rank, size, local_rank] = numbers(["SLURM_PROCID", SLURM_SIZE, "SLURM_LOCALID"], lookup)?;
    let names = ["SLURM_PROCID", SLURM_SIZE, "SLURM_LOCALID", SLURM_PER_NODE];
    let in_order = "start as many tasks on every node, with srun --ntasks-per-node=N --distribution=block";
    let per_node = lookup(SLURM_PER_NODE).ok_or_else(|| EnvironmentError::Missing {
        set: said(&names, lookup),
        missing: SLURM_PER_NODE.into(),
    })?;
    let local_size = tasks_per_node(&per_node).ok_or_else(|| apart(&names, lookup, in_order))?;
    let world = world(rank, size, local_size).filter(|world| world.local_rank() == local_rank);
    let world = world.ok_or_else(|| apart(&names, lookup, in_order))?;
    for (name, own) in [("PMI_RANK", rank), ("PMI_SIZE", size)] {
        if lookup(name).is_some_and(|value| value != own.to_string()) {
            let names = ["SLURM_PROCID", SLURM_SIZE, name];
            return Err(apart(&names, lookup, "Slurm and MPI must mean the same ranks"));
        }
    }
    let job = job(&["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"], lookup);
    Ok(Placement { launcher: Launcher::Slurm, world, job })
}

/// Tasks on each node, from `8(x2)`, `8` or `8,8`; `None` where nodes differ.
fn tasks_per_node(text: &str) -> Option<usize> {
    let counts =
        text.split(',').map(|part| part.split('(').next().and_then(|count| count.trim().parse().ok()));
    let counts: Option<Vec<usize>> = counts.collect();
    let counts = counts?;
    let first = *counts.first()?;
    counts.iter().all(|&count| count == first).then_some(first)
}

fn world(rank: usize, size: usize, local_size: usize) -> Option<World> {
    World::new(rank, size, local_size).ok()
}

/// The numbers that `names` hold, all of which must be there.
fn numbers<const N: usize>(
    names: [&'static str; N],
    lookup: Lookup<'_>,
) -> Result<[usize; N], EnvironmentError> {
    let missing: Vec<_> = names.into_iter().filter(|name| lookup(name).is_none()).collect();
    if !missing.is_empty() {
        return Err(EnvironmentError::Missing { set: said(&names, lookup), missing: missing.join(", ") });
    }
    let mut numbers = [0; N];
    for (number, name) in numbers.iter_mut().zip(names) {
        let value = lookup(name).unwrap_or_default();
        *number = value.trim().parse().map_err(|_| EnvironmentError::Value {
            name: name.to_owned(),
            value,
            expected: "a whole number from 0",
        })?;
    }
    Ok(numbers)
}

fn apart(names: &[&str], lookup: Lookup<'_>, why: &str) -> EnvironmentError {
    EnvironmentError::Apart { values: said(names, lookup), why: why.to_owned() }
}

/// Those of `names` that are set, with what they hold.
fn said(names: &[&str], lookup: Lookup<'_>) -> String {
    let set = names.iter().filter_map(|name| Some(format!("{name}={}", lookup(name)?)));
    set.collect::<Vec<_>>().join(", ")
}

fn job(names: &[&str], lookup: Lookup<'_>) -> Option<String> {
    let parts: Vec<String> = names.iter().filter_map(|name| lookup(name)).collect();
    let text = parts.join("-");
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
    (!text.is_empty()).then(|| text.chars().map(plain).collect())
}

#[cfg(test)]
#[path = "environment_tests.rs"]
mod tests;
