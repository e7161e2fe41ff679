/* A management library without a GPU.
 *
 * FAKE_NVML_DEVICES=1            how many GPUs NVML lists (as many as CUDA)
 * FAKE_NVML_FORBIDDEN=2          and so many more of the node's, which may not be asked here
 * FAKE_NVML_STRANGERS=1          with UUIDs that CUDA does not know
 * FAKE_MIG_PARENTS=1             so many GPUs in MIG mode without an instance
 * FAKE_ECC=3  FAKE_ECC_LIFETIME=9  FAKE_ECC_CORRECTED=5  FAKE_RETIRED=1  FAKE_REPLAYS=7
 * FAKE_REMAP=corrected,uncorrected,pending,failed
 * FAKE_PAGES_PENDING=1  FAKE_REASONS=0x48
 * FAKE_NVML_SICK=1               asking for a handle fails for this device only
 * FAKE_OLD_NVML=1                a driver before 535: the throttle reasons have their old name only
 */
#include "fake.h"

typedef int nvmlReturn_t;
typedef struct { long index; long instance; } Device; /* instance -1: the GPU itself */

#define NOT_SUPPORTED 3
#define NO_PERMISSION 4
#define NOT_FOUND 6
#define FUNCTION_NOT_FOUND 13

static Device devices[64], instances[64];

nvmlReturn_t nvmlInitWithFlags(unsigned flags) { (void)flags; CALL(); return 0; }
nvmlReturn_t nvmlShutdown(void) { return 0; }
nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    CALL();
    snprintf(version, length, "550.54.15");
    return 0;
}
static long shown(void) { return number("FAKE_NVML_DEVICES", number("FAKE_DEVICES", 1)); }
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    CALL();
    *count = (unsigned)(shown() + number("FAKE_NVML_FORBIDDEN", 0));
    return 0;
}
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **handle) {
    const char *sick = getenv("FAKE_NVML_SICK"); /* this device only */
    if (!sick || atoi(sick) == (int)index) CALL();
    if ((long)index >= shown()) return NO_PERMISSION;
    devices[index].index = index;
    devices[index].instance = -1;
    *handle = &devices[index];
    return 0;
}
nvmlReturn_t nvmlDeviceGetUUID(Device *handle, char *uuid, unsigned length) {
    char text[64];
    long base = number("FAKE_NVML_STRANGERS", 0) ? 0x80 : 0;
    CALL();
    if (handle->instance >= 0) snprintf(text, sizeof text, "MIG-" MIG_UUID, handle->instance);
    else snprintf(text, sizeof text, "GPU-" GPU_UUID, base + handle->index);
    snprintf(uuid, length, "%s", text);
    return 0;
}
nvmlReturn_t nvmlDeviceGetName(Device *handle, char *name, unsigned length) {
    CALL();
    snprintf(name, length, handle->instance >= 0 ? "Fake A100 MIG 3g.40gb" : "Fake A100");
    return 0;
}
#ifndef OLD
nvmlReturn_t nvmlDeviceGetMigMode(Device *handle, unsigned *now, unsigned *pending) {
    CALL();
    *now = *pending = (number("FAKE_MIG", 0) && handle->index == 0) || handle->index < number("FAKE_MIG_PARENTS", 0);
    return 0;
}
nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(Device *handle, unsigned *count) { (void)handle; CALL(); *count = 7; return 0; }
nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(Device *handle, unsigned slot, Device **instance) {
    CALL();
    if ((long)slot >= number("FAKE_MIG", 0)) return NOT_FOUND;
    instances[slot].index = handle->index;
    instances[slot].instance = slot;
    *instance = &instances[slot];
    return 0;
}
#endif
nvmlReturn_t nvmlDeviceGetTotalEccErrors(Device *handle, int type, int counter, unsigned long long *count) {
    (void)handle;
    CALL();
    if (type == 0) *count = (unsigned long long)number("FAKE_ECC_CORRECTED", 0); /* corrected */
    else *count = (unsigned long long)(counter == 0 ? number("FAKE_ECC", 0) : number("FAKE_ECC_LIFETIME", 0));
    return 0;
}
#ifndef OLD
nvmlReturn_t nvmlDeviceGetRemappedRows(Device *handle, unsigned *c, unsigned *u, unsigned *pending, unsigned *failed) {
    const char *text = getenv("FAKE_REMAP");
    (void)handle;
    CALL();
    *c = *u = *pending = *failed = 0;
    if (text) sscanf(text, "%u,%u,%u,%u", c, u, pending, failed);
    return 0;
}
#endif
nvmlReturn_t nvmlDeviceGetRetiredPages(Device *handle, int cause, unsigned *count, unsigned long long *addresses) {
    unsigned pages = cause == 1 ? (unsigned)number("FAKE_RETIRED", 0) : 0; /* after a double-bit error */
    (void)handle;
    CALL();
    if (!getenv("FAKE_RETIRED")) return NOT_SUPPORTED;
    for (unsigned i = 0; addresses && i < pages && i < *count; i++) addresses[i] = 0x1000 * (i + 1);
    *count = pages;
    return 0;
}
nvmlReturn_t nvmlDeviceGetPcieReplayCounter(Device *handle, unsigned *count) {
    (void)handle;
    CALL();
    *count = (unsigned)number("FAKE_REPLAYS", 0);
    return 0;
}
nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(Device *handle, unsigned *pending) {
    (void)handle;
    CALL();
    *pending = (unsigned)number("FAKE_PAGES_PENDING", 0);
    return 0;
}
#ifndef OLD
nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(Device *handle, unsigned long long *reasons) {
    (void)handle;
    CALL();
    if (number("FAKE_OLD_NVML", 0)) return FUNCTION_NOT_FOUND;
    *reasons = (unsigned long long)number("FAKE_REASONS", 1); /* idle */
    return 0;
}
#endif
nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(Device *handle, unsigned long long *reasons) {
    (void)handle;
    CALL();
    *reasons = (unsigned long long)number("FAKE_REASONS", 1);
    return 0;
}
nvmlReturn_t nvmlDeviceGetTemperature(Device *handle, int sensor, unsigned *celsius) {
    (void)handle; (void)sensor;
    CALL();
    *celsius = 41;
    return 0;
}
