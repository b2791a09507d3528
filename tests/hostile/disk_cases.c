/* disk_cases.c - folders that cannot be written, disks that fill up, files that shrink while they are read. */
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

/* Nothing but `allowed` in DIR: no file half written, under its own name or another. */
static bool holds_only(const char *dir, const char *allowed)
{
    char command[600];

    snprintf(command, sizeof command, "[ -z \"$(ls -A %s 2>/dev/null | grep -vxE '%s')\" ]", dir,
             *allowed ? allowed : "-");
    return system(command) == 0;
}

/* The least work that is a training. */
#define TINY "--from", "none", "--shape", "tiny", "--rows", "64", "--steps", "1", "--threads", "1"

/* A training that fails; `option` and its `value` may be NULL. */
static void train(hostile *h, const char *name, const char *needle, const char *from,
                  const char *to, const char *option, const char *value)
{
    CASE(h, name, 1, needle, "train", from, "--out", to, TINY, option, value);
}

static void folders(hostile *h)
{
    CASE(h, "quantize_from_nowhere", 1, "nowhere/config.json: cannot open", "quantize", "nowhere",
         "o");
    CASE(h, "quantize_a_file", 1, "a.c/config.json: cannot open", "quantize", "a.c", "o");
    CASE(h, "quantize_into_a_file", 1, "a.c", "quantize", "m", "a.c");
    CASE(h, "quantize_below_a_file", 1, "a.c/o", "quantize", "m", "a.c/o");
    CASE(h, "quantize_into_nowhere", 1, "no/where", "quantize", "m", "no/where");
    CASE(h, "quantize_onto_itself", 1, "onto itself", "quantize", "m", "m");
    if (symlink("m", "link")) abort();
    CASE(h, "quantize_onto_itself_by_a_link", 1, "onto itself", "quantize", "m", "link");
    replace_folder("o");
    put_folder("o/model.safetensors");
    CASE(h, "quantize_onto_a_folder", 1, "model.safetensors", "quantize", "m", "o");
    hostile_holds(h, "quantize_onto_a_folder_leaves_nothing_half",
                  holds_only("o", "model.safetensors|config.json|tokenizer.json"));
    unlink("m/config.json");
    CASE(h, "quantize_without_a_config", 1, "config.json: cannot open", "quantize", "m", "p");
    put_model(h, "m");
    put_folder("m/tokenizer_config.json");
    CASE(h, "quantize_with_a_folder_for_a_file", 1, "tokenizer_config.json: not a regular file",
         "quantize", "m", "p");
    hostile_holds(h, "a_refused_copy_leaves_no_folder", !exists("p"));
    rmdir("m/tokenizer_config.json");
    if (geteuid() == 0) {
        hostile_skip(h, "quantize_into_a_folder_without_rights", "root may write everywhere");
    } else {
        replace_folder("o");
        chmod("o", 0555);
        CASE(h, "quantize_into_a_folder_without_rights", 1,
             "model.safetensors: cannot create: Permission denied", "quantize", "m", "o");
        chmod("o", 0777);
    }
    if (exists("/proc/self"))
        CASE(h, "quantize_into_a_file_system_without_files", 1, "/proc", "quantize", "m", "/proc");
    train(h, "train_into_a_file", "a.c", "corpus", "a.c", NULL, NULL);
    train(h, "train_into_nowhere", "no/where", "corpus", "no/where", NULL, NULL);
    train(h, "train_on_nowhere", "nowhere: no such folder", "nowhere", "t", NULL, NULL);
    train(h, "train_on_a_file", "a.c: not a folder", "a.c", "t", NULL, NULL);
    hostile_holds(h, "a_refused_training_leaves_no_folder", !exists("t"));
    train(h, "train_on_an_empty_folder", "empty: no text is left", "empty", "t", NULL, NULL);
    hostile_holds(h, "a_training_on_nothing_leaves_nothing", holds_only("t", ""));
}

static void torn_corpora(hostile *h)
{
    size_t n;
    char *bytes;

    train(h, "a_list_of_digests_that_is_binary", "digests: no digest at byte 0", "corpus", "out",
          "--decontam", "digests");
    put_text("digests", "0000bbea224950d7\n000394928cad020d\nzz\n");
    train(h, "a_list_of_digests_with_one_bad_line", "digests: no digest at byte 34", "corpus",
          "out", "--decontam", "digests");
    put_text("digests", "");
    train(h, "an_empty_list_of_digests", "digests: no digests", "corpus", "out", "--decontam",
          "digests");
    train(h, "a_list_of_digests_that_is_missing", "gone: cannot open", "corpus", "out",
          "--decontam", "gone");
    CASE(h, "a_model_to_start_from_that_is_missing", 1, "gone/tokenizer.json", "train", "corpus",
         "--out", "out", "--from", "gone", "--steps", "1");
    hostile_holds(h, "without_a_corpus_nothing_is_written", holds_only("out", ""));
    /* One that packs the corpus and then has no checkpoint to go on from. */
    train(h, "a_checkpoint_that_is_missing", "out/checkpoint.safetensors: no checkpoint", "corpus",
          "out", "--resume", NULL);
    hostile_holds(h, "the_corpus_was_packed", exists("out/corpus.rdc"));
    put_text("out/checkpoint.safetensors", "torn");
    train(h, "a_checkpoint_that_is_torn", "checkpoint.safetensors: 4 bytes are too short", "corpus",
          "out", "--resume", NULL);
    put_tensors("out/checkpoint.safetensors",
                "{\"weights\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    train(h, "a_checkpoint_without_a_format", "checkpoint.safetensors: its format is unnamed",
          "corpus", "out", "--resume", NULL);
    put_tensors("out/checkpoint.safetensors",
                "{\"__metadata__\":{\"redraft_checkpoint\":\"2\"},"
                "\"weights\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                4);
    train(h, "a_checkpoint_of_another_run", "was not told; of this run it is", "corpus", "out",
          "--resume", NULL);
    /* A folder with a packed corpus is taken as it is. */
    bytes = get_file("out/corpus.rdc", &n);
    replace_folder("packed");
    put_bytes("packed/corpus.rdc", bytes, n);
    train(h, "a_packed_corpus_without_a_tokenizer", "packed/tokenizer.json", "packed", "t", NULL,
          NULL);
    put_text("packed/tokenizer.json", "{\"model\":{\"vocab\":{},\"merges\":[[\"a\",\"b\"]]}}");
    train(h, "a_tokenizer_beside_the_corpus_that_is_not_ours", "packed/tokenizer.json: merge 0",
          "packed", "t", NULL, NULL);
    copy("out/tokenizer.json", "packed/tokenizer.json");
    const size_t cuts[] = { 0, 8, 39, 40, n / 2, n - 1 };

    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        put_bytes("packed/corpus.rdc", bytes, cuts[i]);
        train(h, named("a_corpus_cut_at_%zu", cuts[i]), "packed/corpus.rdc: ", "packed", "t", NULL,
              NULL);
    }
    static const struct {
        const char *name;
        size_t at;
    } fields[] = { { "vocabulary", 8 }, { "packages", 12 }, { "documents", 16 }, { "tokens", 24 } };

    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char *spoilt = malloc(n);

        memcpy(spoilt, bytes, n);
        memset(spoilt + fields[i].at, i == 0 ? 0 : 0xff, 4);
        put_bytes("packed/corpus.rdc", spoilt, n);
        free(spoilt);
        train(h, named("a_corpus_with_a_wrong_number_of_%s", fields[i].name),
              "packed/corpus.rdc: the packed corpus is torn", "packed", "t", NULL, NULL);
    }
    hostile_holds(h, "a_torn_corpus_leaves_nothing", holds_only("t", ""));
    put_bytes("packed/corpus.rdc", bytes, n);
    free(bytes);
    CASE(h, "a_corpus_that_is_whole", 0, NULL, "train", "packed", "--out", "t", TINY);
}

/* Two ways to a full disk: a small file system where we may mount one, a limit on the size of files. */
static void full_disks(hostile *h)
{
    replace_folder("o");
    h->file_most = 100000;
    CASE(h, "quantize_into_too_large_a_file", 1, "model.safetensors: cannot write: File too large",
         "quantize", "m", "o");
    hostile_holds(h, "too_large_a_file_leaves_nothing", holds_only("o", ""));
    copy("a.c", "o/model.safetensors");
    copy("a.c", "o/config.json");
    h->file_most = 100000;
    CASE(h, "quantize_over_an_older_model", 1, "File too large", "quantize", "m", "o");
    size_t n;
    char *old = get_file("o/model.safetensors", &n), *config = get_file("o/config.json", &n);

    hostile_holds(h, "the_older_model_stands",
                  !strcmp(old, "int main(void)\n") && !strcmp(config, old));
    free(old);
    free(config);
    replace_folder("out");
    h->file_most = 3000;
    train(h, "train_into_too_large_a_file", "File too large", "corpus", "out", NULL, NULL);
    hostile_holds(h, "too_large_a_corpus_leaves_nothing",
                  holds_only("out", "tokenizer.json|tokenizer_config.json"));

    static const int kilobytes[] = { 4, 100, 340, 348 };

    put_folder("disk");
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
        hostile_skip(h, "a_small_file_system", strerror(errno));
        return;
    }
    for (size_t i = 0; i < sizeof kilobytes / sizeof *kilobytes; i++) {
        if (mount("tmpfs", "disk", "tmpfs", 0, named("size=%dk", kilobytes[i]))) {
            hostile_skip(h, "a_small_file_system", strerror(errno));
            return;
        }
        CASE(h, named("quantize_into_%d_kb", kilobytes[i]), 1,
             "cannot write: No space left on device", "quantize", "m", "disk");
        hostile_holds(h, named("a_disk_of_%d_kb_is_left_empty", kilobytes[i]),
                      holds_only("disk", ""));
        if (i == 0) {
            train(h, "train_into_4_kb", "No space left on device", "corpus", "disk", NULL, NULL);
            hostile_holds(h, "train_leaves_nothing_half_on_a_full_disk", holds_only("disk", ""));
        }
        umount("disk");
    }
    if (!mount("tmpfs", "disk", "tmpfs", MS_RDONLY, NULL)) {
        CASE(h, "quantize_into_a_read_only_disk", 1, "Read-only file system", "quantize", "m",
             "disk");
        umount("disk");
    }
}

/* A mapped file that is cut while it is read. Where the reader was quicker there is nothing to see. */
static void shrinking(hostile *h)
{
    static const char tensor[] =
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[131072,1024],\"data_offsets\":[0,536870912]}}";

    replace_folder("s");
    copy("m/config.json", "s/config.json");
    put_tensors("s/model.safetensors", tensor, 0);
    if (truncate("s/model.safetensors", (off_t)(8 + strlen(tensor) + 536870912))) abort();
    replace_folder("o");
    pid_t id = fork();

    if (id == 0) {
        struct stat st;

        /* The first file that appears says that reading has begun. */
        for (int i = 0; i < 20000 && holds_only("o", ""); i++) usleep(100);
        if (stat("s/model.safetensors", &st) || truncate("s/model.safetensors", 4096)) _exit(1);
        _exit(0);
    }
    CASE(h, "a_file_that_shrinks_while_it_is_read", 1, "", "quantize", "s", "o");
    waitpid(id, NULL, 0);
}

void disk_cases(hostile *h)
{
    put_text("a.c", "int main(void)\n");
    put_bytes("digests", "\0\1\2\xff", 4);
    put_model(h, "m");
    put_folder("empty");
    put_folder("corpus");
    put_folder("corpus/p");
    FILE *f = fopen("corpus/p/a.c", "wb");

    for (int i = 0; i < 400; i++)
        fprintf(f, "static int function_%d(int value) { return value * %d; }\n", i, i);
    fclose(f);
    folders(h);
    torn_corpora(h);
    full_disks(h);
    shrinking(h);
}
