"""The command `frugal`. Each command's module is imported only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.cache import cache
from gateway.cli.check import check
from gateway.cli.costs import costs
from gateway.cli.keys import keys
from gateway.cli.learn import certify, evaluate, predict, train
from gateway.cli.outcomes import outcomes
from gateway.cli.plan import plan
from gateway.cli.prices import prices
from gateway.cli.reconcile import reconcile

app = typer.Typer(
    name="frugal",
    help="An OpenAI-compatible gateway that cuts the LLM bill without cutting quality.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
engine = typer.Typer(help="The local engine on its own.", no_args_is_help=True)
app.add_typer(engine, name="engine")
app.add_typer(keys, name="keys")
app.add_typer(prices, name="prices")
app.add_typer(cache, name="cache")
app.add_typer(outcomes, name="outcomes")
app.command()(check)
app.command()(plan)
app.command()(costs)
app.command()(reconcile)
app.command()(train)
app.command()(predict)
app.command()(evaluate)
app.command()(certify)

DEMO_QUESTIONS = 300
DEMO_SEED = 7
"""What `frugal demo` asks unless told otherwise; no threshold is chosen on it."""

Port = Annotated[int | None, typer.Option(help="Public port; overrides the policy.")]
AdminPort = Annotated[int | None, typer.Option(help="Admin port; overrides the policy.")]


@app.command(epilog="Example: frugal serve policies/demo.yaml --port 4000")
def serve(
    policy: Annotated[Path, typer.Argument(help="The YAML policy to serve.")],
    port: Port = None,
    admin_port: AdminPort = None,
    host: Annotated[str | None, typer.Option(help="Public address; overrides the policy.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Alike processes.")] = None,
    ledger: Annotated[str | None, typer.Option(help="Ledger URL; overrides the policy.")] = None,
) -> None:
    """Serve a policy until interrupted."""
    from gateway.cli.serve import run_serve

    overrides = {"port": port, "admin_port": admin_port, "host": host, "workers": workers}
    run_serve(policy, {k: v for k, v in overrides.items() if v is not None}, ledger)


@app.command(epilog="Example: frugal up, then in another terminal: frugal demo")
def up(port: Port = None, admin_port: AdminPort = None) -> None:
    """Serve the demo policy: two shipped models, no key, no network, no GPU."""
    from gateway.cli.up import run_up

    overrides = {"port": port, "admin_port": admin_port}
    run_up({k: v for k, v in overrides.items() if v is not None})


@app.command(epilog="Example: frugal demo --questions 300 --url http://127.0.0.1:4000")
def demo(
    url: Annotated[str, typer.Option(help="The running gateway.")] = "http://127.0.0.1:4000",
    questions: Annotated[
        int, typer.Option(min=10, max=5000, help="Held-out prompts.")
    ] = DEMO_QUESTIONS,
    seed: Annotated[int, typer.Option(help="Which prompts.")] = DEMO_SEED,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Requests at once.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Compare always-small, always-large and the cascade on the running demo gateway."""
    from gateway.cli.demo import run_demo

    raise typer.Exit(
        run_demo(url, questions=questions, seed=seed, concurrency=concurrency, as_json=as_json)
    )


@engine.command("serve", epilog="Example: frugal engine serve demo/small --port 8001")
def engine_serve(
    checkpoint: Annotated[str, typer.Argument(help="demo/NAME, or a checkpoint directory.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8001,
    model_name: Annotated[str | None, typer.Option(help="Name that clients send.")] = None,
    quantization: Annotated[
        str, typer.Option(help="none, int8, int4, int4-g32, int4-g128, nf4, fp8 or as-stored.")
    ] = "none",
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
    max_batch: Annotated[int, typer.Option(min=1, help="Requests decoded at once.")] = 8,
    guesses: Annotated[
        int | None, typer.Option(min=0, max=16, help="Tokens to guess ahead; 4 with --draft.")
    ] = None,
    draft: Annotated[str | None, typer.Option(help="A smaller checkpoint that guesses.")] = None,
    adapters: Annotated[Path | None, typer.Option(help="Directory of LoRA adapters.")] = None,
    kv: Annotated[str, typer.Option(help="Keys and values as in the model, or in int8.")] = "model",
    kv_bytes: Annotated[
        str | None, typer.Option(help="What keys and values may take, such as 512MiB.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    max_queue: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 64,
    max_context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of prompt and answer together.")
    ] = None,
    prefill_chunk: Annotated[
        int | None, typer.Option(min=1, help="Prompt tokens of a step; 128, on a GPU 1024.")
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", help="The stretched context of models that have two.")
    ] = False,
) -> None:
    """Serve one checkpoint as an OpenAI server of its own."""
    from local_engine.server import main as serve_engine

    arguments = [checkpoint, "--host", host, "--port", str(port), "--quantization", quantization,
                 "--threads", str(threads), "--max-batch", str(max_batch), "--kv", kv]  # fmt: skip
    arguments += ["--dtype", dtype, "--max-queue", str(max_queue), *(["--long"] if long else [])]
    optional = {
        "--guesses": guesses,
        "--draft": draft,
        "--adapters": adapters,
        "--model-name": model_name,
        "--kv-bytes": None if kv_bytes is None else _bytes(kv_bytes),
        "--max-context": max_context,
        "--prefill-chunk": prefill_chunk,
    }
    arguments += [str(w) for k, v in optional.items() if v is not None for w in (k, v)]
    raise typer.Exit(serve_engine(arguments))


def _bytes(text: str) -> object:
    from policies.units import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--kv-bytes") from None


@engine.command("bench", epilog="Example: frugal engine bench --shape 100m --only decoding")
def engine_bench(
    shape: Annotated[str, typer.Option(help="Random weights: 1m, 8m, 100m or 500m.")] = "100m",
    dtype: Annotated[str, typer.Option(help="bf16 or fp32.")] = "bf16",
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
    only: Annotated[
        list[str] | None, typer.Option(help="decoding, overhead, guessing, prefix or endurance.")
    ] = None,
    quality: Annotated[
        bool, typer.Option("--quality", help="What each quantization costs, not how fast it is.")
    ] = False,
    checkpoint: Annotated[str, typer.Option(help="What --quality measures.")] = "demo/small",
    text: Annotated[Path | None, typer.Option(help="The text that --quality measures on.")] = None,
    questions: Annotated[int, typer.Option(min=1, help="Examples of --quality.")] = 200,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Check a GPU's kernels and time the engine on it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One object, no table.")] = False,
) -> None:
    """Measure the engine on random weights; exit with 1 where a target is missed."""
    if gpu:
        from local_engine.bench.gpu import main as measure_gpu

        raise typer.Exit(measure_gpu(["--json"] if as_json else []))
    if quality:
        from local_engine.quality import main as measure_quality

        arguments = [checkpoint, "--questions", str(questions)]
        arguments += ["--text", str(text)] if text is not None else []
        raise typer.Exit(measure_quality([*arguments, *(["--json"] if as_json else [])]))
    from local_engine.bench.__main__ import main as bench_engine

    arguments = ["--shape", shape, "--dtype", dtype, "--threads", str(threads)]
    arguments += [word for name in only or () for word in ("--only", name)]
    raise typer.Exit(bench_engine([*arguments, *(["--json"] if as_json else [])]))


def main() -> None:
    """Run the command line."""
    app()
