//! A WASI 0.3 command: `exit CODE`, `fail`, `sleep`, `file PATH` (std's files are WASI 0.2 here), else standard input is
//! copied to standard output.

struct Run;
wasip3::cli::command::export!(Run);

impl wasip3::exports::cli::run::Guest for Run {
    async fn run() -> Result<(), ()> {
        let args = wasip3::cli::environment::get_arguments();
        let arg = |index: usize| args.get(index).map(String::as_str).unwrap_or_default();
        match arg(1) {
            "exit" => wasip3::cli::exit::exit_with_code(arg(2).parse().unwrap()),
            "fail" => return Err(()),
            "sleep" => wasip3::clocks::monotonic_clock::wait_for(10_000_000).await,
            "file" => {
                std::fs::write(arg(2), "written").unwrap();
                println!("{}", std::fs::read_to_string(arg(2)).unwrap());
            }
            _ => {
                let (input, end) = wasip3::cli::stdin::read_via_stream();
                wasip3::cli::stdout::write_via_stream(input).await.map_err(drop)?;
                end.await.map_err(drop)?;
            }
        }
        Ok(())
    }
}
