"""What can be typed after `headrace batch`?"""

from typing import Annotated

import typer

batch = typer.Typer(
    help="Have a model answer the rows of files, without a server.\n\n"
    "  headrace batch run prompts.jsonl answers --model smollm2",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@batch.command(context_settings={"allow_extra_args": True})
def run(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="IN", help="JSON lines, CSV or Parquet; or a folder of files of one kind.")
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder of the answers, a file for each partition.")],
    model: Annotated[
        str, typer.Option(help="smollm2, tiny, an artefact, a folder, owner/name; or a fleet file of one.")
    ],
    prompt: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of prompts (prompt).")] = None,
    messages: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of chats (messages).")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Each prompt is what a user says, not a text to go on.")] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer, at most.")] = 256,
    temperature: Annotated[float | None, typer.Option(min=0, help="0: the likeliest token (the model's own).")] = None,
    sampling: Annotated[
        str | None, typer.Option(metavar="JSON", help='More, by vLLM\'s names: \'{"top_p": 0.9, "seed": 1}\'.')
    ] = None,
    partition_rows: Annotated[int, typer.Option(min=1, help="Rows of a partition: what an interruption loses.")] = 1000,
    engines: Annotated[
        int | None, typer.Option(min=1, help="Engines side by side (as many as the GPUs hold; on CPUs one).")
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Engines on all nodes of the cluster that this was submitted to.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="Begins the names of the columns that are added.")] = "",
) -> None:
    """Answer every row. What is interrupted goes on by the same command.

    Rows have a `prompt`, `messages`, or are OpenAI's batch lines. The answers have the rows' columns, and answer,
    finish_reason, prompt_tokens, output_tokens, error.

    \b
    headrace batch run prompts.jsonl answers --model smollm2
    headrace batch run questions.csv answers --model smollm2 --prompt question --chat --max-tokens 100 --temperature 0
    headrace batch run chats.parquet answers --model Qwen/Qwen3-8B --partition-rows 5000 -- --max-model-len 8192
    headrace submit batch run /shared/in.jsonl /shared/out --model owner/name --cluster --address http://head:8265
    """
    from headrace.offline.command import Wish
    from headrace.offline.command import run as answer

    answer(
        Wish(
            source=source,
            out=out,
            model=model,
            engine=context.args,
            prompt=prompt,
            messages=messages,
            chat=chat,
            max_tokens=max_tokens,
            temperature=temperature,
            sampling=sampling,
            partition_rows=partition_rows,
            engines=engines,
            cluster=cluster,
            prefix=prefix,
        )
    )
