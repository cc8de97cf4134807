use super::*;

/// What the variables in `text`, `NAME=value` each, say.
fn read(text: &str) -> Result<Option<Placement>, EnvironmentError> {
    Placement::read(lookup(text))
}

fn lookup(text: &str) -> impl Fn(&str) -> Option<String> {
    move |name| {
        let mut pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    }
}

fn found(text: &str) -> (Launcher, World) {
    let placement = read(text).unwrap().unwrap();
    (placement.launcher, placement.world)
}

fn refused(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

const TORCH: &str = "RANK=11 WORLD_SIZE=16 LOCAL_RANK=3 LOCAL_WORLD_SIZE=8";
const OMPI: &str = "OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=0 \
                    OMPI_COMM_WORLD_LOCAL_SIZE=2";
const HYDRA: &str = "PMI_RANK=3 PMI_SIZE=4 MPI_LOCALRANKID=3 MPI_LOCALNRANKS=4";
const SRUN: &str = "SLURM_JOB_ID=77 SLURM_STEP_ID=0 SLURM_NTASKS=16 SLURM_TASKS_PER_NODE=8(x2) SLURM_PROCID=9 \
                    SLURM_LOCALID=1 SLURM_STEP_NUM_TASKS=16 SLURM_STEP_TASKS_PER_NODE=8(x2)";

#[test]
fn every_launcher_is_recognised() {
    let world = |rank, size, local| World::new(rank, size, local).unwrap();
    assert_eq!(found(TORCH), (Launcher::Torchrun, world(11, 16, 8)));
    assert_eq!(found(OMPI), (Launcher::OpenMpi, world(2, 4, 2)));
    assert_eq!(found(HYDRA), (Launcher::Mpich, world(3, 4, 4)));
    assert_eq!(found(SRUN), (Launcher::Slurm, world(9, 16, 8)));
    assert_eq!(read("PATH=/bin MASTER_ADDR=localhost").unwrap(), None);
    assert_eq!(read("RANK= WORLD_SIZE=").unwrap(), None);
}

#[test]
fn a_batch_script_without_srun_waits_for_nobody() {
    let script = "SLURM_JOB_ID=77 SLURM_NTASKS=8 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 \
                  SLURM_TASKS_PER_NODE=8 SLURM_JOB_NUM_NODES=1";
    assert_eq!(read(script).unwrap(), None);
}

#[test]
fn the_innermost_launcher_counts() {
    // One task a node starts torchrun or mpirun, which start the ranks.
    let outer = "SLURM_PROCID=1 SLURM_LOCALID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_TASKS_PER_NODE=1(x2)";
    for inner in [TORCH, OMPI, HYDRA] {
        assert_eq!(found(&format!("{outer} {inner}")), found(inner));
    }
    assert_eq!(found(&format!("{OMPI} {TORCH}")), found(TORCH));
    // srun itself gives MPI its ranks.
    assert_eq!(found(&format!("{SRUN} PMI_RANK=9 PMI_SIZE=16")), found(SRUN));
}

#[test]
fn half_set_variables_are_named() {
    assert_eq!(
        refused("RANK=3 WORLD_SIZE=8"),
        "RANK=3, WORLD_SIZE=8 without LOCAL_RANK, LOCAL_WORLD_SIZE: a rank needs all of them; set these as well, or unset \
         the others to train without ranks"
    );
    for (text, names) in [
        ("LOCAL_RANK=0", &["LOCAL_RANK=0 without RANK, WORLD_SIZE, LOCAL_WORLD_SIZE"][..]),
        ("OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2", &["OMPI_COMM_WORLD_LOCAL_RANK"]),
        ("MPI_LOCALRANKID=0 MPI_LOCALNRANKS=2", &["without PMI_RANK, PMI_SIZE"]),
        ("SLURM_STEP_NUM_TASKS=8 SLURM_PROCID=0", &["without SLURM_LOCALID"]),
        ("SLURM_STEP_NUM_TASKS=8 SLURM_PROCID=0 SLURM_LOCALID=0", &["without SLURM_STEP_TASKS_PER_NODE"]),
    ] {
        let message = refused(text);
        assert!(names.iter().all(|name| message.contains(name)), "{text}: {message}");
    }
}

#[test]
fn contradictions_are_named() {
    for (text, words) in [
        ("RANK=two WORLD_SIZE=8 LOCAL_RANK=0 LOCAL_WORLD_SIZE=8", &["RANK=two", "whole number"][..]),
        ("RANK=-1 WORLD_SIZE=8 LOCAL_RANK=0 LOCAL_WORLD_SIZE=8", &["RANK=-1", "whole number"]),
        ("RANK=8 WORLD_SIZE=8 LOCAL_RANK=0 LOCAL_WORLD_SIZE=8", &["RANK=8", "WORLD_SIZE=8"]),
        ("RANK=3 WORLD_SIZE=6 LOCAL_RANK=3 LOCAL_WORLD_SIZE=4", &["LOCAL_WORLD_SIZE=4", "every node"]),
        // Dealt over the nodes like cards.
        (
            "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2",
            &["OMPI_COMM_WORLD_RANK=1", "--map-by slot"],
        ),
        (
            "SLURM_PROCID=1 SLURM_LOCALID=0 SLURM_STEP_NUM_TASKS=4 SLURM_STEP_TASKS_PER_NODE=2(x2)",
            &["SLURM_LOCALID=0", "--distribution=block"],
        ),
        (
            "SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_STEP_NUM_TASKS=5 SLURM_STEP_TASKS_PER_NODE=3,2",
            &["SLURM_STEP_TASKS_PER_NODE=3,2", "--ntasks-per-node"],
        ),
        (
            "SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_TASKS_PER_NODE=2 PMI_RANK=1",
            &["PMI_RANK=1", "SLURM_PROCID=0"],
        ),
    ] {
        let message = refused(text);
        assert!(words.iter().all(|word| message.contains(word)), "{text}: {message}");
    }
}

#[test]
fn tasks_per_node_are_read_as_slurm_writes_them() {
    assert_eq!(tasks_per_node("8"), Some(8));
    assert_eq!(tasks_per_node("8(x4)"), Some(8));
    assert_eq!(tasks_per_node("8(x2),8"), Some(8));
    assert_eq!(tasks_per_node("8(x2),4"), None);
    assert_eq!(tasks_per_node("many"), None);
}

#[test]
fn a_start_of_a_job_has_a_name_for_files() {
    let job = |text: &str| read(text).unwrap().unwrap().job;
    assert_eq!(job(SRUN).as_deref(), Some("77-0"));
    assert_eq!(job(&format!("{SRUN} SLURM_RESTART_COUNT=2")).as_deref(), Some("77-0-2"));
    let torch = format!("{TORCH} TORCHELASTIC_RUN_ID=a/b TORCHELASTIC_RESTART_COUNT=1");
    assert_eq!(job(&torch).as_deref(), Some("a_b-1"));
    assert_eq!(job(OMPI), None);
}

#[test]
fn each_rank_of_a_node_has_its_gpu() {
    let placement = read(TORCH).unwrap().unwrap();
    let gpu = |visible: &str| placement.gpu(lookup(visible));
    assert_eq!(gpu(""), Ok(3));
    assert_eq!(gpu("CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7"), Ok(3));
    assert_eq!(gpu("CUDA_VISIBLE_DEVICES=5"), Ok(0));
    let message = gpu("CUDA_VISIBLE_DEVICES=0,1,2,3").unwrap_err().to_string();
    assert!(message.contains("CUDA_VISIBLE_DEVICES=0,1,2,3 and 8 ranks"), "{message}");
}
