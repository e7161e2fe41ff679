/* What both fakes share: devices, UUIDs, and faults by environment.
 *
 * FAKE_DEVICES=2                 how many GPUs there are (1)
 * FAKE_FAIL=cuInit=999,…         these calls return that code
 * FAKE_HANG=cuInit,…             these calls never return
 * FAKE_HANG_MARK=…               a directory in which a call that hangs leaves a file of its name
 * FAKE_SLOW=cuInit=300,…         these calls take so many milliseconds
 * FAKE_CRASH=cuInit,…            these calls end in SIGSEGV
 * FAKE_KILL=…  FAKE_EXIT=…       … in SIGKILL, in exit(7)
 * FAKE_PRINT=…  FAKE_SCRIBBLE=…  print on stdout, write garbage into every open descriptor from 3 on
 * OLD, when compiled             a driver from before 470: without the functions that came later
 * FAKE_MIG=2                     the first GPU is divided into so many instances
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 0) : otherwise;
}

/* The text behind "call" in a comma-separated list: "" for a bare name, the code after '=', NULL if it is not there. */
static const char *listed(const char *variable, const char *call) {
    const char *text = getenv(variable);
    size_t length = strlen(call);
    while (text && *text) {
        if (!strncmp(text, call, length)) {
            if (text[length] == '=') return text + length + 1;
            if (text[length] == ',' || !text[length]) return "";
        }
        text = strchr(text, ',');
        if (text) text++;
    }
    return NULL;
}

static int faulty(const char *call) {
    const char *code = listed("FAKE_FAIL", call);
    if (listed("FAKE_PRINT", call)) { puts("{\"end\": \"\"}"); fflush(stdout); }
    if (listed("FAKE_SCRIBBLE", call))
        for (int fd = 3; fd < 64; fd++) (void)!write(fd, "\x1b]garbage\n", 10);
    if (listed("FAKE_HANG", call)) {
        const char *place = getenv("FAKE_HANG_MARK");
        char mark[512];
        snprintf(mark, sizeof mark, "%s/%s", place ? place : "", call);
        if (place) close(creat(mark, 0600));
        for (;;) pause();
    }
    if (listed("FAKE_SLOW", call)) usleep(1000 * (useconds_t)atoi(listed("FAKE_SLOW", call)));
    if (listed("FAKE_CRASH", call)) raise(SIGSEGV);
    if (listed("FAKE_KILL", call)) raise(SIGKILL);
    if (listed("FAKE_EXIT", call)) exit(7);
    return code ? atoi(code) : 0;
}
#define CALL() do { int code_ = faulty(__func__); if (code_) return code_; } while (0)

#define GPU_UUID "00000000-1111-2222-3333-4444444444%02lx"
#define MIG_UUID "99999999-1111-2222-3333-4444444444%02lx"
