/* A CUDA driver without a GPU: real memory, and a launch computes what the launched function means.
 *
 * FAKE_FLIP=3:1048579:0x10      allocation, byte, mask: these bits are flipped whenever data get there
 * FAKE_STUCK=3:77:0xff:0x20     allocation, byte, mask, value: these bits read as the value
 * FAKE_ALIAS=0x100000           this bit of an offset is not wired: two addresses are one cell
 * FAKE_ONE_BUFFER=1             every allocation lies at the same place
 * FAKE_LAZY=cuMemcpyDtoD_v2,…   these calls do nothing and say that they succeeded
 * FAKE_WRONG=4711               the thread with this number computes one bit wrong; -1: all of them, always alike
 * FAKE_BAD_DEVICE=1             faults happen on this device only
 * FAKE_FREE=1000000             free bytes: an allocation that is larger fails
 * FAKE_COUNT=2                  how many devices are counted (as many as there are)
 * FAKE_VERSION=0                what cuDriverGetVersion says (12040)
 * FAKE_LEDGER=…                 a directory in which each process that gives its device back leaves what it still holds
 * FAKE_REVERSED=1               the devices are in the other order than NVML's
 * FAKE_NAME=…                   the name of the devices
 * FAKE_UNSTABLE=1               a process that has not counted the devices sees them in another order
 * FAKE_TWIN=1                   all devices have the UUID of the first
 */
#include "fake.h"
#include <stdint.h>

typedef int CUresult;
#define TOTAL (80L << 30)
#define MOST 64

static struct { unsigned char *bytes; size_t size; int live; } allocations[MOST];
static int allocated, counted, retained, current = -1;
static unsigned char *shared_place;

static long shown(void) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible && (!*visible || !strcmp(visible, "-1") || !strcmp(visible, "NoDevFiles"))) return 0;
    if (number("FAKE_MIG", 0)) return 1; /* one instance per process */
    if (visible) return 1;
    return number("FAKE_DEVICES", 1);
}

static int afflicted(void) {
    long bad = number("FAKE_BAD_DEVICE", -1);
    return bad < 0 || bad == current;
}
#define HERE() do { if (afflicted()) CALL(); if (listed("FAKE_LAZY", __func__)) return 0; } while (0)

CUresult cuDriverGetVersion(int *version) { CALL(); *version = (int)number("FAKE_VERSION", 12040); return 0; }
CUresult cuInit(unsigned flags) { (void)flags; CALL(); return shown() ? 0 : 100; }
CUresult cuDeviceGetCount(int *count) { CALL(); counted = 1; *count = (int)number("FAKE_COUNT", shown()); return 0; }
CUresult cuDeviceGet(int *device, int index) {
    if (index >= shown()) return 101;
    current = index;
    if (afflicted()) CALL();
    *device = index;
    return 0;
}
CUresult cuDeviceGetName(char *name, int length, int device) {
    (void)device;
    CALL();
    snprintf(name, (size_t)length, "%s", getenv("FAKE_NAME") ? getenv("FAKE_NAME") : "Fake A100");
    return 0;
}
#ifdef OLD
#define cuDeviceGetUuid_v2 cuDeviceGetUuid
#endif
CUresult cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    char text[64], *from = text;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    long which = number("FAKE_REVERSED", 0) ? shown() - 1 - device : device;
    CALL();
    if (number("FAKE_UNSTABLE", 0) && !counted) which = shown() - 1 - device;
    if (number("FAKE_TWIN", 0)) which = 0;
    if (visible && !strncmp(visible, "MIG-", 4)) snprintf(text, sizeof text, "%s", visible + 4);
    else snprintf(text, sizeof text, number("FAKE_MIG", 0) ? MIG_UUID : GPU_UUID, which);
    for (int i = 0; i < 16; i++, from += 2) {
        unsigned byte;
        if (*from == '-') from++;
        sscanf(from, "%2x", &byte);
        uuid[i] = (unsigned char)byte;
    }
    return 0;
}
CUresult cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; CALL(); *bytes = TOTAL; return 0; }
CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    CALL();
    *value = attribute == 16 ? 108 : attribute == 75 ? 8 : 0;
    return 0;
}
CUresult cuDevicePrimaryCtxRetain(void **context, int device) {
    (void)device;
    HERE();
    *context = (void *)1;
    retained++;
    return 0;
}
CUresult cuDevicePrimaryCtxRelease_v2(int device) {
    const char *place = getenv("FAKE_LEDGER");
    char path[512];
    int live = 0;
    FILE *ledger;
    HERE();
    retained--;
    for (int i = 0; i < allocated; i++) live += allocations[i].live;
    snprintf(path, sizeof path, "%s/%d", place ? place : "", device);
    if (place && (ledger = fopen(path, "w"))) {
        fprintf(ledger, "contexts %d, allocations %d of %d\n", retained, live, allocated);
        fclose(ledger);
    }
    return 0;
}
CUresult cuCtxPushCurrent_v2(void *context) { (void)context; HERE(); return 0; }
CUresult cuCtxPopCurrent_v2(void **context) { (void)context; HERE(); return 0; }
CUresult cuCtxSynchronize(void) { HERE(); return 0; }
CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    HERE();
    *total = TOTAL;
    *free_bytes = (size_t)number("FAKE_FREE", TOTAL);
    return 0;
}
CUresult cuMemAlloc_v2(unsigned long long *address, size_t size) {
    HERE();
    if (allocated == MOST || (long)size > number("FAKE_FREE", TOTAL)) return 2;
    if (number("FAKE_ONE_BUFFER", 0)) {
        if (!shared_place) shared_place = malloc(size);
        allocations[allocated].bytes = shared_place;
    } else {
        allocations[allocated].bytes = malloc(size);
    }
    allocations[allocated].size = size;
    allocations[allocated].live = 1;
    *address = (unsigned long long)(uintptr_t)allocations[allocated++].bytes;
    return 0;
}

static int which(unsigned long long address) {
    for (int i = 0; i < allocated; i++)
        if (allocations[i].live && (uintptr_t)allocations[i].bytes == address) return i;
    return -1;
}
CUresult cuMemFree_v2(unsigned long long address) {
    int i = which(address);
    HERE();
    if (i < 0) return 1;
    allocations[i].live = 0;
    if (!shared_place) free(allocations[i].bytes);
    return 0;
}

static void flip(int i, size_t size) {
    int allocation; size_t byte; int mask;
    const char *text = getenv("FAKE_FLIP");
    if (text && afflicted() && sscanf(text, "%d:%zu:%i", &allocation, &byte, &mask) == 3 && allocation == i && byte < size)
        allocations[i].bytes[byte] ^= (unsigned char)mask;
}
static void stick(int i, unsigned char *data, size_t size) {
    int allocation, mask, value; size_t byte;
    const char *text = getenv("FAKE_STUCK");
    if (text && afflicted() && sscanf(text, "%d:%zu:%i:%i", &allocation, &byte, &mask, &value) == 4 && allocation == i &&
        byte < size)
        data[byte] = (unsigned char)((data[byte] & ~mask) | (value & mask));
}
static void put(int i, const unsigned char *data, size_t size) {
    size_t wired = ~(size_t)number("FAKE_ALIAS", 0);
    if (wired + 1) for (size_t k = 0; k < size; k++) allocations[i].bytes[k & wired] = data[k];
    else memcpy(allocations[i].bytes, data, size);
    flip(i, size);
}
static void get(int i, unsigned char *data, size_t size) {
    size_t wired = ~(size_t)number("FAKE_ALIAS", 0);
    if (wired + 1) for (size_t k = 0; k < size; k++) data[k] = allocations[i].bytes[k & wired];
    else memcpy(data, allocations[i].bytes, size);
    stick(i, data, size);
}

CUresult cuMemsetD32_v2(unsigned long long address, unsigned word, size_t count) {
    int i = which(address);
    HERE();
    if (i < 0 || count * 4 > allocations[i].size) return 1;
    for (size_t k = 0; k < count; k++) memcpy(allocations[i].bytes + 4 * k, &word, 4);
    flip(i, count * 4);
    return 0;
}
CUresult cuMemcpyHtoD_v2(unsigned long long address, const void *data, size_t size) {
    int i = which(address);
    HERE();
    if (i < 0 || size > allocations[i].size) return 1;
    put(i, data, size);
    return 0;
}
CUresult cuMemcpyDtoH_v2(void *data, unsigned long long address, size_t size) {
    int i = which(address);
    HERE();
    if (i < 0 || size > allocations[i].size) return 1;
    get(i, data, size);
    return 0;
}
CUresult cuMemcpyDtoD_v2(unsigned long long target, unsigned long long source, size_t size) {
    int to = which(target), from = which(source);
    unsigned char *data;
    HERE();
    if (to < 0 || from < 0 || size > allocations[to].size || size > allocations[from].size) return 1;
    data = malloc(size);
    get(from, data, size);
    put(to, data, size);
    free(data);
    return 0;
}
CUresult cuModuleLoadData(void **module, const void *image) {
    HERE();
    if (!strstr(image, ".version 6.4") || !strstr(image, ".target sm_50")) return 218;
    *module = (void *)image;
    return 0;
}
CUresult cuModuleUnload(void *module) { (void)module; HERE(); return 0; }
CUresult cuModuleGetFunction(void **function, void *module, const char *name) {
    (void)module;
    HERE();
    if (strcmp(name, "gpu_check_mix")) return 500;
    *function = (void *)"gpu_check_mix";
    return 0;
}

/* Step by step, as the PTX has it: not the closed form that the CPU's side uses. */
static uint32_t gpu_check_mix(uint32_t state) {
    float addend = (float)(state & 255), sum = 0;
    for (int step = 0; step < 256; step++) {
        state = state * 1664525u + 1013904223u;
        sum = addend * 0.5f + sum;
    }
    return state ^ (uint32_t)sum;
}
CUresult cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, void *stream, void **parameters, void **extra) {
    int from, to;
    unsigned long long source, target;
    uint32_t count, threads = gx * bx;
    long wrong = number("FAKE_WRONG", -2);
    (void)shared; (void)stream; (void)extra;
    HERE();
    if (!function || strcmp(function, "gpu_check_mix") || gy * gz * by * bz != 1) return 1;
    memcpy(&source, parameters[0], 8);
    memcpy(&target, parameters[1], 8);
    memcpy(&count, parameters[2], 4);
    from = which(source); to = which(target);
    if (from < 0 || to < 0 || count * 4ul > allocations[from].size || count * 4ul > allocations[to].size) return 700;
    for (uint32_t thread = 0; thread < threads && thread < count; thread++) {
        uint32_t word;
        memcpy(&word, allocations[from].bytes + 4 * thread, 4);
        word = gpu_check_mix(word);
        if (afflicted() && (wrong == -1 || wrong == (long)thread)) word ^= 0x40;
        memcpy(allocations[to].bytes + 4 * thread, &word, 4);
    }
    return 0;
}
CUresult cuGetErrorName(CUresult error, const char **name) {
    *name = error == 999 ? "CUDA_ERROR_UNKNOWN" : error == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_OF_THE_FAKE";
    return 0;
}
