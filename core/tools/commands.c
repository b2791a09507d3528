/* commands.c - the table of calls. */
#include "core/tools/calls.h"

#include <stddef.h>

#define RUN_OPTIONS                                                  \
    { "--mode", "speed|quality", "the ends of the dial" },           \
        { "--quality", "0..1", "the dial itself" },                  \
        { "--max-ms", "N", "answer with what is denoised by then" }, \
        { "--max-tokens", "N", "tokens at most; 256 without it" },   \
    {                                                                \
        "--seed", "N", "for sampling; the default is greedy"         \
    }

#define END              \
    {                    \
        NULL, NULL, NULL \
    }

static const rd_option infill_options[] = {
    { "--diff", NULL, "print a unified diff" },
    { "--watch", NULL, "draw the denoising, step by step, on stderr" },
    { "--jsonl", NULL, "one request a line on stdin, one answer a line" },
    { "--no-draft", NULL, "no drafts copied from the file" },
    RUN_OPTIONS,
    END,
};

static const rd_option rewrite_options[] = {
    { "--instruction", "TEXT", "what to change; for chat models, others ignore it" },
    { "--watch", NULL, "draw the denoising, step by step, on stderr" },
    { "--jsonl", NULL, "one request a line on stdin, one answer a line" },
    RUN_OPTIONS,
    END,
};

static const rd_option score_options[] = { { "--json", NULL, "in file order, as JSON" }, END };

static const rd_option generate_options[] = {
    { "--prompt", "TEXT", "what to continue; stdin without it" },
    { "--language", "NAME", "python, c or other" },
    { "--watch", NULL, "draw the denoising, step by step, on stderr" },
    RUN_OPTIONS,
    END,
};

static const rd_option tokenize_options[] = {
    { "--decode", NULL, "ids to bytes" },
    { "--json", NULL, "print an array" },
    END,
};

static const rd_option quantize_options[] = {
    { "--weights", "int8|int4", "the packed format; int8 without it" },
    { "--json", NULL, "say what was done as JSON" },
    END,
};

static const rd_option train_options[] = {
    { "--out", "DIR", "checkpoint, log and model go here" },
    { "--minutes", "N", "length of the run; 60 without it; 0: pack and stop" },
    { "--steps", "N", "length in steps: then stop and resume do not show" },
    { "--from", "MODEL", "start from this one; builtin, none" },
    { "--shape", "NAME", "tiny, e8, e21 or e46, from nothing" },
    { "--resume", NULL, "go on from the checkpoint" },
    { "--decontam", "FILE", "digests of lines that must not be trained on" },
    { "--lr", "X", "learning rate; 0.002 without it" },
    { "--rows", "N", "positions a step; 8192 without it" },
    { "--mix", "KEY=VALUE,...", "what the model is shown; list: the keys" },
    { "--vocab", "N", "tokens of a vocabulary learnt here; 12288 without it" },
    { "--adamw", NULL, "AdamW for all weights, not Muon" },
    { "--no-fake-quant", NULL, "no rounding to int8 in the last 15 %" },
    { "--average", "SHARE", "the mean of the last share's weights" },
    { "--seed", "N", "1 without it" },
    { "--backend", "NAME", "cpu, cuda or auto" },
    { "--threads", "N", "as many as cores without it" },
    END,
};

static const rd_option average_options[] = {
    { "--out", "DIR", "the folder to write" },
    END,
};

static const rd_option eval_options[] = {
    { "--cases", "N", "holes of each kind; 300 without it" },
    { "--seed", "N", "which holes; 1 without it" },
    { "--kinds", "LIST", "of line,end,middle,multi; all without it" },
    { "--set", "FILE", "cases from lines of JSON, not from a folder" },
    { "--write-set", "FILE", "write the cases as such lines, and end" },
    { "--quality", "LIST", "places of the dial: 0,0.5,1; 0.5 without it" },
    { "--no-draft", NULL, "the model alone, no drafts copied from the file" },
    { "--ngram", "PACK", "the n-gram's floor, over a packed corpus" },
    { "--quick", NULL, "no length given, no faults, no bits a byte" },
    { "--page", "FILE", "draw an HTML page; at five places of the dial" },
    { "--calibrate", NULL, "fit the model's confidence, and say what it is worth" },
    { "--write", "MODEL", "and write it into this folder's config.json" },
    { "--json", NULL, "print one object" },
    END,
};

static const rd_option compare_options[] = {
    { "--cases", "N", "pieces of text and holes; 20 without it" },
    { "--seed", "N", "which; 1 without it" },
    { "--kv", "raw|bf16|int8", "one model: what it loses where blocks were stored so" },
    { "--json", NULL, "print one object" },
    { "--backend", "NAME", "cpu, cuda or auto" },
    { "--isa", "NAME", "plain, avx2 or avx512; the best without it" },
    { "--threads", "N", "threads; as many as cores without it" },
    END,
};

static const rd_option bench_options[] = {
    { "--shape", "NAME",
      "llada2.1-mini, e46, e8, dense-59m, builtin, or FILE.json" },
    { "--layers", "N", "fewer layers of that shape" },
    { "--weights", "NAME", "bf16, int8, int4 or, on a GPU, fp8, of random weights; bf16 without it" },
    { "--context", "LIST", "tokens before the block; 0,512,1024 without it" },
    { "--rows", "N", "rows of a pass; 32 without it" },
    { "--experts", "LIST", "distinct experts that a pass meets in a layer" },
    { "--file", "PATH", "a packed model on disk, its load time and memory" },
    { "--repeat", "N", "runs of each; as many as 10 s allow, 15 at most, without it" },
    { "--check", NULL, "compare one layer's picks with the plain path, time nothing" },
    { "--json", NULL, "print one object" },
    END,
};

static const rd_option conformance_options[] = {
    { "--dump", "DIR", "write what was computed, in the folders' own formats" },
    END,
};

static const rd_option no_options[] = { END };

const rd_command rd_commands[] = {
    { "infill", "FILE:LINE:COL | --jsonl", "fill the hole at a place, seeing both sides",
      "redraft infill README.md:3:1 --diff", infill_options, true, rd_tool_infill },
    { "rewrite", "FILE:FIRST-LAST | --jsonl", "rewrite lines in place; prints a diff",
      "redraft rewrite README.md:1-2", rewrite_options, true, rd_tool_rewrite },
    { "score", "FILE[:FIRST-LAST]", "the probability of each token; the doubtful ones first",
      "redraft score README.md:1-4", score_options, true, rd_tool_score },
    { "generate", "[--prompt TEXT]", "continue a text",
      "redraft generate --prompt 'def add(a, b):'", generate_options, true, rd_tool_generate },
    { "tokenize", "[--decode]", "stdin to ids and back, byte for byte",
      "echo 'int main(void)' | redraft tokenize", tokenize_options, true, rd_tool_tokenize },
    { "quantize", "IN OUT", "pack a model's weights",
      "redraft quantize model model-int8 --weights int8", quantize_options, false,
      rd_tool_quantize },
    { "train", "DIR --out OUT", "train a model on your own source, or from nothing",
      "redraft train . --out out --minutes 60", train_options, false, rd_tool_train },
    { "average", "A B [C...] --out DIR", "the mean of models that share their start",
      "redraft average run-1/model run-2/model --out mean", average_options, false,
      rd_tool_average },
    { "eval", "DIR | --set FILE", "measure the answers on holes of real files",
      "redraft eval core --cases 5 --quick", eval_options, true, rd_tool_eval },
    { "compare", "A B [DIR] | A DIR --kv FORMAT",
      "two models on the same texts: agreement, loss, speed", "redraft compare builtin builtin",
      compare_options, false, rd_tool_compare },
    { "bench", "", "time the model's passes beside the machine's ceilings",
      "redraft bench --shape llada2.1-mini --layers 4 --repeat 3", bench_options, true,
      rd_tool_bench },
    { "plugins", "", "the backends found, and why one was refused", "redraft plugins", no_options,
      false, rd_tool_plugins },
    { "conformance", "PATH...", "compare with recorded answers of the reference code",
      "redraft conformance tests/data/golden", conformance_options, true, rd_tool_conformance },
    { NULL, NULL, NULL, NULL, NULL, false, NULL },
};
