"""What does a new fleet file look like?"""

from pathlib import Path

from headrace.failure import bad_input

EXAMPLE = """\
# What this fleet serves. `headrace serve fleet.yaml` starts it; only `models` is required.

models:
  - name: smollm2            # what clients write in "model"
    source: smollm2          # smollm2, tiny, minilm, a folder, or a hub id (owner/name)
    tensor_parallel: 1       # devices over which each layer is split; auto: as few GPUs as hold it
    pipeline_parallel: 1     # groups of layers, each on its own devices
    replicas:                # engines that load may bring
      min: 1
      max: 1
    engine:                  # engine arguments, by vLLM's names
      max_model_len: 2048
    require_reference: true  # refuse a checkpoint without reference numbers beside it
    variants: []             # cheaper forms of it, for overload and for who prefers cost

router:
  host: 127.0.0.1            # 0.0.0.0 listens on every interface
  open: null                 # may anybody ask? null: on loopback, while there is neither a tenant nor a key
  port: 8000                 # OpenAI-compatible endpoint
  replicas: 1                # routers, each with its own queue
  max_queued_requests: 1024  # waiting requests per router and model before more are refused
  longest_stream_s: 600      # an answer that takes longer ends with an error; what is stopped waits for the others
  continuations: 2           # how often a stream goes on at another replica when its own is lost
  limits:                    # what is beyond is refused, with the field, its value and what is allowed
    body_bytes: 33554432
    head_bytes: 65536
    head_s: 30               # seconds for the head of a request to come, and for its body after that
    body_s: 120
    prompt_tokens: null      # null: what the model's context holds
    max_tokens: null
    n: 128
    stop_strings: 64
    file_bytes: 209715200    # a file of /v1/files
    tenant_files_bytes: 10737418240 # all files of a tenant
    batch_lines: 50000       # lines of a batch's input file
    tenant_open_batches: 100 # batches of a tenant that have not ended
    open_requests: 4096      # answered at once by one router
    first_token_s: 300       # seconds that a stream may need to begin, and for each token after that
    between_tokens_s: 120
  deadlines:                 # seconds to the first token, where a request names none (x-headrace-deadline-s)
    interactive: null        # null: as long as it takes
    standard: null
    batch: null
  batches_kept_days: 90      # how long a batch can be looked at after its end
  settle_s: 1                # a router that is stopped takes connections for so long; more behind a load balancer
  allow_media_urls: false    # may requests name images and audio by URL, which engines then fetch?
  allow_chat_templates: false # may requests bring a chat template of their own?

scaling:
  ttft_s: 1                  # seconds to the first token that users should not wait longer than
  token_s: 0.05              # seconds from one token to the next, likewise
  attainment: 0.99           # share of requests that should meet both
  target_utilization: 0.8    # share of an engine's time, slots and cache that load may take
  hold_s: 60                 # seconds for which the largest recent need is kept
  advise: false              # true: Ray Serve's own law scales, ours is only told (`headrace scaling`)
  ongoing_requests: 2        # with advise: requests that Serve's law gives each engine

store:                       # keys, usage, batches and scale decisions
  url: null                  # null: an SQLite file in the state folder; or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE
  files: null                # null: a folder beside that file; or /folder, s3://BUCKET/PREFIX, gcs://BUCKET/PREFIX

cluster:
  address: local             # starts Ray on this machine, on loopback, while the fleet runs
"""


def init(path: str, *, force: bool) -> None:
    """Writes an example. Raises Failure rather than overwrite a file."""
    target = Path(path)
    try:
        with target.open("w" if force else "x") as file:
            file.write(EXAMPLE)
    except FileExistsError:
        raise bad_input(f"{path} exists: give another path, or --force to overwrite it") from None
    except OSError as error:
        raise bad_input(f"{path}: {(error.strerror or str(error)).lower()}") from None
    print(f"wrote {path}: `headrace serve {path}` starts it")
