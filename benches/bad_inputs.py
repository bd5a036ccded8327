"""Tries what nobody should: options, files, folders, signals, disks, terminals and locales; prints what each gave as a table.

    cargo build --release
    python benches/bad_inputs.py --wgtune target/release/wgtune > table.md

A case is a shell script in a folder with a tiny pretrained model in `model`, an adapter of it in `adapter` and rows in `rows.jsonl`.
Each is to end within 30 seconds, in an error that says what is wrong or in what was asked for; never in a panic, an abort or a hang.
The last line says how many did not.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

TINY = "--vocab-size 300 --hidden-size 32 --intermediate-size 48 --layers 2 --heads 4 --key-value-heads 2 --max-length 32"
SFT = "$W sft --model model --data rows.jsonl --out out --steps 2 --device cpu"
RUN = "$W sft --model model --data rows.jsonl --out out"
SEE = "$W logits --model model --ids 1,2 --device cpu"
CHAT = "$W tokenize --model model --messages chat.json"
SET = "python3 -c 'import json,sys; p=sys.argv[1]; d=json.load(open(p)); d.update(json.loads(sys.argv[2])); json.dump(d,open(p,\"w\"))'"

CASES = {
    "Options": [
        "$W sft", "$W", "$W --version extra", "$W sft --help extra", "$W nosuch",
        f"{SFT} --seed -1", f"{SFT} --seed 18446744073709551616", f"{SFT} --seed 0x10", f"{SFT} --learning-rate 1e39",
        f"{SFT} --learning-rate 1e-400", f"{SFT} --epochs 1e300", f"{SFT} --warmup 1e30", f"{SFT} --validation 1e18",
        f"{SFT} --validation 0.999999", f"{SFT} --steps 1 --steps 2", f"{SFT} --alpha 1e38 --rank 1", f"{SFT} --clip 1e-38",
        f"{SFT} --weight-decay 3e38", f"{SFT} --targets ''", f"{SFT} --targets '*'", f"{SFT} --targets q_proj,q_proj",
        f"{SFT} --targets lm_head", f"{SFT} --targets model.layers.9.self_attn.q_proj", f"{SFT} --save-minutes 1e-30",
        f"{SFT} --matmul-precision low", f"{RUN} --device gpu:", f"{RUN} --device 'gpu:\u200b'", f"{RUN} --device CPU",
        f"{SFT} --batch-size 65536", f"{RUN} --accumulate 4096 --steps 1 --device cpu", f"{SFT} --max-length 16777216", f"{SFT} --max-length 16777216 --beyond",
        "$W generate --model model --prompt x --top-k 18446744073709551615 --max-new-tokens 2 --device cpu",
        "$W generate --model model --prompt x --top-p 1e-45 --max-new-tokens 2 --device cpu",
        "$W generate --model model --prompt x --temperature 1e-45 --max-new-tokens 2 --device cpu",
        "$W generate --model model --prompt x --temperature 3e38 --max-new-tokens 2 --device cpu",
        "$W generate --model model --prompt x --repetition-penalty 1e-38 --max-new-tokens 2 --device cpu",
        "$W generate --model model --prompt x --max-new-tokens 16777216 --device cpu",
        "$W generate --model model --prompt x --max-new-tokens 16777216 --beyond --device cpu --stop a --stop e --stop t",
        "$W generate --model model --ids '' --device cpu", "$W generate --model model --ids 1,,2 --device cpu",
        "$W generate --model model --ids 4294967295 --device cpu", "$W generate --model model --ids -1 --device cpu",
        "$W generate --model model --chat --prompt x", "$W generate --model model --prompt x --system y",
        "$W logits --model model --prompt \"$(head -c 100000 /dev/zero | tr '\\0' a)\" --device cpu",
        "$W bench --filter nosuch --device cpu", "$W bench --seconds 0 --device cpu", "$W bench --compare rows.jsonl --device cpu",
        "$W bench --from model/config.json", "$W bench --tokens 16384 --filter add --seconds 0.001 --device cpu --shapes tiny",
        "$W completions tcsh", "$W devices --device cpu",
        "$W pretrain --data text.txt --out out --vocab-size 1048576 --steps 1 --device cpu",
        "$W pretrain --data text.txt --out out --heads 1024 --hidden-size 2048 --steps 1 --max-length 8 --device cpu",
    ],
    "Data": [
        "printf '{\"prompt\": \"a\", \"completion\": 1}' > d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "printf '{\"prompt\": \"a\", \"completion\": \"\"}' > d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "printf '{\"prompt\": null, \"completion\": \"b\"}' > d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "printf '{\"messages\": []}' > d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "printf '{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}' > d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "printf '{\"messages\": [{\"role\": 1, \"content\": \"x\"}]}' > d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "printf '{\"messages\": [{\"role\": \"assistant\", \"content\": [{\"type\": \"image\"}]}]}' > d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "printf '{\"input_ids\": [1.5]}' > d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "printf '{\"input_ids\": []}' > d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "printf '{\"text\": \"\\\\ud800\"}' > d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "printf '{\"a\": 1, \"a\": 2}' > d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "python3 -c \"print('['*100000)\" > d.json; $W eval --model model --data d.json --device cpu",
        "python3 -c \"print('{\\\"text\\\": ' + '['*200 + ']'*200 + '}')\" > d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "python3 -c \"print('\\0'*1000)\" > d.txt; $W eval --model model --data d.txt --device cpu",
        "printf '\\xff\\xfeh\\0i\\0' > d.txt; $W eval --model model --data d.txt --device cpu",
        "printf 'a,b\\n1,2\\n' > d.csv; $W eval --model model --data d.csv --device cpu",
        "printf 'prompt,completion\\na,b,c\\n' > d.csv; $W eval --model model --data d.csv --device cpu",
        "printf 'prompt,completion\\n\"a,b\\n' > d.csv; $W eval --model model --data d.csv --device cpu",
        "printf 'PAR1xxxxPAR1' > d.parquet; $W eval --model model --data d.parquet --device cpu",
        "printf '\\x1f\\x8bxxxx' > d.jsonl.gz; $W eval --model model --data d.jsonl.gz --device cpu",
        "printf 'PK\\3\\4' > d.xlsx; $W eval --model model --data d.xlsx --device cpu",
        "python3 -c \"import gzip; gzip.open('d.txt.gz','wb').write(b'a'*(1<<30))\"; $W eval --model model --data d.txt.gz --device cpu",
        "mkfifo d.jsonl; $W eval --model model --data d.jsonl --device cpu", "$W eval --model model --data /dev/zero --device cpu",
        "$W eval --model model --data . --device cpu", "ln -s d.jsonl d.jsonl; $W eval --model model --data d.jsonl --device cpu",
        "$W eval --model model --data rows.jsonl --columns nosuch=prompt --device cpu",
        "$W eval --model model --data rows.jsonl --columns prompt=nosuch --device cpu",
        "$W eval --model model --data rows.jsonl --columns prompt --device cpu",
        "python3 -c \"print('word '*2000000)\" > d.txt; $W pretrain --data d.txt --out out --steps 1 --device cpu --max-length 8 --vocab-size 300",
    ],
    "Models and adapters": [
        f"{SET} model/config.json '{{\"num_hidden_layers\": 1000000000}}'; {SEE}",
        f"{SET} model/config.json '{{\"vocab_size\": 4294967295}}'; {SEE}",
        f"{SET} model/config.json '{{\"hidden_size\": 4294967295}}'; {SEE}",
        f"{SET} model/config.json '{{\"rms_norm_eps\": 1e-400}}'; {SEE}",
        f"{SET} model/config.json '{{\"rope_theta\": 1e308, \"rope_parameters\": null}}'; {SEE}",
        f"{SET} model/config.json '{{\"rope_scaling\": {{\"rope_type\": \"dynamic\", \"factor\": 1e308}}, \"rope_parameters\": null}}'; {SEE}",
        f"{SET} model/config.json '{{\"max_position_embeddings\": 1}}'; {SEE}",
        f"{SET} model/config.json '{{\"eos_token_id\": 99999}}'; $W generate --model model --prompt The --max-new-tokens 2 --device cpu",
        "echo null > model/config.json; " + SEE, "echo '[]' > model/config.json; " + SEE, ": > model/config.json; " + SEE,
        ": > model/model.safetensors; " + SEE, "head -c 8 /dev/zero > model/model.safetensors; " + SEE,
        "rm model/model.safetensors; mkfifo model/model.safetensors; " + SEE,
        "rm model/model.safetensors; mkdir model/model.safetensors; " + SEE,
        "chmod 000 model/model.safetensors; " + SEE,
        "echo '{}' > model/tokenizer.json; $W tokenize --model model --text x",
        "rm model/tokenizer.json; mkfifo model/tokenizer.json; $W tokenize --model model --text x",
        "python3 -c \"print('{{' + 'x'*1 + '+1'*20000 + '}}')\" > model/chat_template.jinja; " + CHAT,
        "echo '{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}' > model/chat_template.jinja; " + CHAT,
        "python3 -c \"print('{% set x = \\'a\\' %}' + '{% set x = x + x %}'*60 + '{{ x }}')\" > model/chat_template.jinja; " + CHAT,
        "echo '{{ messages | tojson(indent=99999999999) }}' > model/chat_template.jinja; " + CHAT,
        "echo '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}' > model/chat_template.jinja; " + CHAT,
        "echo '{% include \"/etc/passwd\" %}' > model/chat_template.jinja; " + CHAT,
        "python3 -c \"print('{% if a %}x'*5000)\" > model/chat_template.jinja; " + CHAT,
        f"{SET} adapter/adapter_config.json '{{\"r\": 4294967295}}'; {SEE} --adapter adapter",
        f"{SET} adapter/adapter_config.json '{{\"lora_alpha\": 1e308}}'; {SEE} --adapter adapter",
        f"{SET} adapter/adapter_config.json '{{\"target_modules\": [1]}}'; {SEE} --adapter adapter",
        f"{SET} adapter/adapter_config.json '{{\"rank_pattern\": {{\"q_proj\": -1}}}}'; {SEE} --adapter adapter",
        "rm adapter/adapter_model.safetensors; " + SEE + " --adapter adapter", SEE + " --adapter model", SEE + " --adapter adapter/adapter_config.json",
    ],
    "Folders and disks": [
        "touch out; " + SFT, "mkdir -p out/checkpoint; " + SFT, "ln -s nowhere out; " + SFT, "ln -s . out; " + SFT,
        SFT.replace("--out out", "--out ''"), SFT.replace("--out out", "--out /"), SFT.replace("--out out", "--out /dev/null"),
        SFT.replace("--out out", "--out /proc/wgtune"), SFT.replace("--out out", "--out ."),
        SFT.replace("--out out", f"--out {'x' * 300}"), SFT.replace("--out out", "--out $'a\\nb'"), SFT.replace("--out out", "--out $'\\xff'"),
        f"{SFT}; : > out/metrics.jsonl; {SFT} --resume", f"{SFT}; : > out/run.toml; {SFT} --resume",
        f"{SFT}; echo '{{\"step\": 18446744073709551615, \"num_tokens\": 0}}' > out/checkpoint/state.json; {SFT} --resume",
        f"{SFT}; : > out/checkpoint/tensors.safetensors; {SFT} --resume", f"{SFT}; rm out/checkpoint/state.json; {SFT} --resume",
        f"{SFT}; rm -r out/run.lock; mkdir out/run.lock; {SFT} --resume", f"trap '' XFSZ; ulimit -f 0; {SFT}", f"ulimit -n 8; {SFT}",
        "$W merge --model model --adapter adapter --out model/merged --device cpu", "$W merge --model model --adapter model --out m --device cpu",
        "$W logits --model model --ids 1 --device cpu --out /dev/full", "$W logits --model model --ids 1 --device cpu --out /dev/full --overwrite", "$W logits --model model --ids 1 --device cpu --out model",
        f"{SFT} --profile /dev/full", f"{SFT} --profile out", f"HOME=/nowhere XDG_CACHE_HOME=/proc/x {SFT}", f"TMPDIR=/nowhere $W demo --device cpu",
    ],
    "Signals, terminals and locales": [
        f"{SFT.replace('--steps 2', '--steps 1000000')} & sleep 3; kill -INT $!; wait $!",
        f"{SFT.replace('--steps 2', '--steps 1000000')} & sleep 3; kill -TERM $!; wait $!",
        f"{SFT.replace('--steps 2', '--steps 1000000')} & sleep 3; kill -HUP $!; wait $!",
        f"{SFT.replace('--steps 2', '--steps 1000000')} & sleep 3; kill -INT $!; kill -INT $!; wait $!",
        f"{SFT} >&-", f"{SFT} 2>&-", f"{SFT} <&-", f"{SFT} > /dev/full", f"{SFT} 2> /dev/full", f"{SFT} --json | true",
        f"LC_ALL=tr_TR.UTF-8 LANG=C {SFT}", f"LC_ALL=POSIX {SFT}", f"TERM= {SFT}", f"TERM=dumb COLUMNS=0 {SFT}", "COLUMNS=1 $W sft --help",
        f"script -qec '{SFT}' /dev/null", "$W generate --model model --chat --device cpu --max-new-tokens 2 < /dev/null",
        "printf '\\xff\\xfe\\n' | $W generate --model model --chat --device cpu --max-new-tokens 2",
        "head -c 1000000 /dev/zero | tr '\\0' a | $W generate --model model --chat --device cpu --max-new-tokens 2",
        f"ulimit -v 400000; {SFT}", f"RAYON_NUM_THREADS=0 {SFT}", f"RAYON_NUM_THREADS=100000 {SFT}", f"env -i $W devices",
        f"VK_ICD_FILENAMES=/nowhere VK_DRIVER_FILES=/nowhere {SFT.replace('--device cpu', '--device gpu')}",
    ],
}


def prepare(wgtune, folder):
    run = lambda arguments: subprocess.run([wgtune, *arguments.split()], cwd=folder, check=True, capture_output=True)
    sentences = ["The cat sat on the mat.", "The dog ran in the park.", "A bird sang in the tree.", "The sun rose over the hill."]
    (folder / "text.txt").write_text("".join(f"{sentences[i % 4]} {sentences[i // 4 % 4]}\n<|endoftext|>\n" for i in range(48)))
    run(f"pretrain --data text.txt --out model {TINY} --steps 10 --validation 0 --device cpu")
    (folder / "rows.jsonl").write_text('{"prompt": "The cat", "completion": " sat."}\n' * 8)
    run("sft --model model --data rows.jsonl --out adapter --steps 1 --validation 0 --device cpu")
    (folder / "chat.json").write_text('[{"role": "user", "content": "The cat"}]')


def attempt(wgtune, whole, script):
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "case"
        shutil.copytree(whole, folder)
        limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        begun = time.monotonic()
        child = subprocess.Popen(["bash", "-c", script], cwd=folder, env=os.environ | {"W": str(wgtune), "XDG_CACHE_HOME": parent},
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=limit, start_new_session=True)
        try:
            said, errors = child.communicate(timeout=30)
            code = child.returncode
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            said, errors = child.communicate()
            code = "hang"
        return code, time.monotonic() - begun, said.decode(errors="replace"), errors.decode(errors="replace")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wgtune", type=Path, required=True)
    parser.add_argument("--only", default="", help="cases that hold this text")
    options = parser.parse_args()
    wgtune, bad, count = options.wgtune.resolve(), [], 0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        whole.mkdir()
        prepare(wgtune, whole)
        for heading, cases in CASES.items():
            print(f"\n## {heading}\n\n| case | exit | seconds | said |\n|---|---|---|---|")
            for script in (case for case in cases if options.only in case):
                code, seconds, said, errors = attempt(wgtune, whole, script)
                lines = [line for line in (errors or said).splitlines() if line.strip()]
                last = next((line for line in lines if line.startswith(("wgtune:", "error:"))), lines[-1] if lines else "")
                crashed = any(word in errors for word in ["panicked", "stack overflow", "memory allocation of", "Aborted", "core dumped"])
                count += 1
                if crashed or code == "hang" or (isinstance(code, int) and (code < 0 or code in (101, 134, 137, 139))):
                    bad.append(script)
                show = lambda text: text.replace("|", "\\|").replace("`", "'")
                print(f"| `{show(script)[:150]}` | {code} | {seconds:.1f} | {show(last)[:200]} |", flush=True)
    print(f"\n{count} cases; {len(bad)} in a panic, an abort or a hang{':' if bad else ''}", *(f"- `{script}`" for script in bad), sep="\n")


if __name__ == "__main__":
    main()
