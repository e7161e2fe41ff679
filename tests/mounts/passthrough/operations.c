#define _GNU_SOURCE
#include "operations.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "nodes.h"
#include "rules.h"

#define DESCRIPTOR_PATH 32

static int failed_with(int result) {
    return result < 0 ? errno : 0;
}

/* A path that leads to the thing behind a node, whatever its name is now. */
static const char *path_of(uint64_t id, char path[DESCRIPTOR_PATH]) {
    snprintf(path, DESCRIPTOR_PATH, "/proc/self/fd/%d", node_fd(id));
    return path;
}

static void fill(struct fuse_attr *attr, const struct stat *status) {
    *attr = (struct fuse_attr){
        .ino = status->st_ino,
        .size = status->st_size,
        .blocks = status->st_blocks,
        .atime = status->st_atim.tv_sec,
        .atimensec = status->st_atim.tv_nsec,
        .mtime = status->st_mtim.tv_sec,
        .mtimensec = status->st_mtim.tv_nsec,
        .ctime = status->st_ctim.tv_sec,
        .ctimensec = status->st_ctim.tv_nsec,
        .mode = status->st_mode,
        .nlink = status->st_nlink,
        .uid = status->st_uid,
        .gid = status->st_gid,
        .rdev = status->st_rdev,
        .blksize = status->st_blksize,
    };
}

static int attributes(struct call *call) {
    struct stat status;
    if (fstatat(node_fd(call->in->nodeid), "", &status, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
        return errno;
    struct fuse_attr_out *out = call->out;
    *out = (struct fuse_attr_out){.attr_valid = 1};
    fill(&out->attr, &status);
    call->out_bytes = sizeof *out;
    return 0;
}

static int entry(struct call *call, const char *name) {
    struct fuse_entry_out *out = call->out;
    struct stat status;
    *out = (struct fuse_entry_out){.entry_valid = 1, .attr_valid = 1};
    int error = node_look_up(call->in->nodeid, name, &out->nodeid, &status);
    if (error)
        return error;
    fill(&out->attr, &status);
    call->out_bytes = sizeof *out;
    return 0;
}

/* What has just been made as `name` belongs to whoever asked for it. */
static int made(struct call *call, const char *name) {
    const struct fuse_in_header *in = call->in;
    if ((in->uid || in->gid) && fchownat(node_fd(in->nodeid), name, in->uid, in->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return errno;
    return entry(call, name);
}

/* The bytes that are free once `name` is gone. */
static int64_t bytes_in(uint64_t directory, const char *name) {
    struct stat status;
    int found = fstatat(node_fd(directory), name, &status, AT_SYMLINK_NOFOLLOW);
    return found == 0 && S_ISREG(status.st_mode) && status.st_nlink == 1 ? status.st_size : 0;
}

static int change_size(uint64_t id, int64_t size) {
    char path[DESCRIPTOR_PATH];
    struct stat status;
    if (stat(path_of(id, path), &status) < 0)
        return errno;
    int error = budget_use(size - status.st_size);
    return error ? error : failed_with(truncate(path, size));
}

static int change(struct call *call) {
    const struct fuse_setattr_in *in = call->body;
    uint64_t id = call->in->nodeid;
    char path[DESCRIPTOR_PATH];
    int error = 0;
    if (in->valid & (FATTR_UID | FATTR_GID)) {
        uid_t uid = in->valid & FATTR_UID ? in->uid : (uid_t)-1;
        gid_t gid = in->valid & FATTR_GID ? in->gid : (gid_t)-1;
        error = failed_with(fchownat(node_fd(id), "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
    }
    if (!error && in->valid & FATTR_MODE)
        error = failed_with(chmod(path_of(id, path), in->mode & 07777));
    if (!error && in->valid & FATTR_SIZE)
        error = change_size(id, in->size);
    if (!error && in->valid & (FATTR_ATIME | FATTR_MTIME)) {
        struct timespec times[] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
        if (in->valid & FATTR_ATIME)
            times[0] = (struct timespec){in->atime, in->valid & FATTR_ATIME_NOW ? UTIME_NOW : in->atimensec};
        if (in->valid & FATTR_MTIME)
            times[1] = (struct timespec){in->mtime, in->valid & FATTR_MTIME_NOW ? UTIME_NOW : in->mtimensec};
        error = failed_with(utimensat(node_fd(id), "", times, AT_EMPTY_PATH));
    }
    return error ? error : attributes(call);
}

static int open_node(struct call *call, int flags) {
    char path[DESCRIPTOR_PATH];
    int fd = open(path_of(call->in->nodeid, path), (flags & ~(O_NOFOLLOW | O_APPEND | O_DIRECT)) | O_CLOEXEC);
    if (fd < 0)
        return errno;
    *(struct fuse_open_out *)call->out = (struct fuse_open_out){.fh = fd};
    call->out_bytes = sizeof(struct fuse_open_out);
    return 0;
}

static int create(struct call *call) {
    const struct fuse_create_in *in = call->body;
    const char *name = (const char *)(in + 1);
    int flags = (in->flags & ~(O_APPEND | O_DIRECT)) | O_CREAT | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(node_fd(call->in->nodeid), name, flags, in->mode);
    if (fd < 0)
        return errno;
    int error = made(call, name);
    if (error) {
        close(fd);
        return error;
    }
    struct fuse_open_out *opened = (void *)((struct fuse_entry_out *)call->out + 1);
    *opened = (struct fuse_open_out){.fh = fd};
    call->out_bytes = sizeof(struct fuse_entry_out) + sizeof *opened;
    return 0;
}

static int read_file(struct call *call) {
    const struct fuse_read_in *in = call->body;
    size_t count = in->size < LONGEST_DATA ? in->size : LONGEST_DATA;
    ssize_t got = pread(in->fh, call->out, count, in->offset);
    call->out_bytes = got > 0 ? got : 0;
    return failed_with(got);
}

static int write_file(struct call *call) {
    const struct fuse_write_in *in = call->body;
    struct stat status;
    if (fstat(in->fh, &status) < 0)
        return errno;
    int64_t growth = (int64_t)(in->offset + in->size) - status.st_size;
    int error = growth > 0 ? budget_use(growth) : 0;
    if (error)
        return error;
    ssize_t done = pwrite(in->fh, in + 1, in->size, in->offset);
    *(struct fuse_write_out *)call->out = (struct fuse_write_out){.size = done};
    call->out_bytes = sizeof(struct fuse_write_out);
    return failed_with(done);
}

static int read_directory(struct call *call) {
    const struct fuse_read_in *in = call->body;
    char names[LONGEST_DATA / 2];
    size_t room = in->size < LONGEST_DATA ? in->size : LONGEST_DATA;
    if (lseek(in->fh, in->offset, SEEK_SET) < 0)
        return errno;
    /* An entry of the kernel has 24 bytes at least, and the same in FUSE 8 more: half always fits. */
    ssize_t got = getdents64(in->fh, names, room / 2);
    char *out = call->out;
    for (ssize_t at = 0; at < got;) {
        const struct dirent64 *found = (const void *)(names + at);
        size_t length = strlen(found->d_name);
        struct fuse_dirent *put = (void *)out;
        *put = (struct fuse_dirent){
            .ino = found->d_ino, .off = found->d_off, .namelen = length, .type = found->d_type};
        memcpy(put->name, found->d_name, length);
        memset(put->name + length, 0, FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + length) - FUSE_NAME_OFFSET - length);
        out += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + length);
        at += found->d_reclen;
    }
    call->out_bytes = out - (char *)call->out;
    return failed_with(got);
}

static int read_link(struct call *call) {
    ssize_t got = readlinkat(node_fd(call->in->nodeid), "", call->out, LONGEST_DATA);
    call->out_bytes = got > 0 ? got : 0;
    return failed_with(got);
}

static int make(struct call *call) {
    int at = node_fd(call->in->nodeid), result;
    const char *name = call->body;
    switch (call->in->opcode) {
    case FUSE_MKDIR:
        name += sizeof(struct fuse_mkdir_in);
        result = mkdirat(at, name, ((const struct fuse_mkdir_in *)call->body)->mode);
        break;
    case FUSE_MKNOD: {
        const struct fuse_mknod_in *in = call->body;
        name += sizeof *in;
        result = mknodat(at, name, in->mode, in->rdev);
        break;
    }
    case FUSE_SYMLINK: /* the name, then the target */
        result = symlinkat(name + strlen(name) + 1, at, name);
        break;
    default: /* a link has no owner of its own */
        name += sizeof(struct fuse_link_in);
        result = linkat(node_fd(((const struct fuse_link_in *)call->body)->oldnodeid), "", at, name, AT_EMPTY_PATH);
        return result < 0 ? errno : entry(call, name);
    }
    return result < 0 ? errno : made(call, name);
}

static int remove_name(struct call *call, int flags) {
    int64_t bytes = bytes_in(call->in->nodeid, call->body);
    if (unlinkat(node_fd(call->in->nodeid), call->body, flags) < 0)
        return errno;
    budget_release(bytes);
    return 0;
}

static int rename_name(struct call *call) {
    uint64_t target = *(const uint64_t *)call->body; /* both kinds of request begin with it */
    unsigned flags = 0;
    const char *from = (const char *)call->body + sizeof(struct fuse_rename_in);
    if (call->in->opcode == FUSE_RENAME2) {
        flags = ((const struct fuse_rename2_in *)call->body)->flags;
        from = (const char *)call->body + sizeof(struct fuse_rename2_in);
    }
    const char *to = from + strlen(from) + 1;
    int64_t bytes = flags ? 0 : bytes_in(target, to);
    if (renameat2(node_fd(call->in->nodeid), from, node_fd(target), to, flags) < 0)
        return errno;
    budget_release(bytes);
    return 0;
}

static int file_system(struct call *call) {
    struct statvfs found;
    char path[DESCRIPTOR_PATH];
    if (statvfs(path_of(call->in->nodeid, path), &found) < 0)
        return errno;
    int64_t left = budget_left();
    uint64_t free_blocks = left < 0 ? found.f_bavail : (uint64_t)left / found.f_frsize;
    struct fuse_statfs_out *out = call->out;
    *out = (struct fuse_statfs_out){.st = {
        .blocks = found.f_blocks,
        .bfree = free_blocks,
        .bavail = free_blocks,
        .files = found.f_files,
        .ffree = found.f_ffree,
        .bsize = found.f_bsize,
        .frsize = found.f_frsize,
        .namelen = found.f_namemax,
    }};
    call->out_bytes = sizeof *out;
    return 0;
}

int operate(struct call *call) {
    const void *body = call->body;
    switch (call->in->opcode) {
    case FUSE_LOOKUP:
        return entry(call, body);
    case FUSE_GETATTR:
        return attributes(call);
    case FUSE_SETATTR:
        return change(call);
    case FUSE_READLINK:
        return read_link(call);
    case FUSE_MKDIR:
    case FUSE_MKNOD:
    case FUSE_SYMLINK:
    case FUSE_LINK:
        return make(call);
    case FUSE_UNLINK:
        return remove_name(call, 0);
    case FUSE_RMDIR:
        return remove_name(call, AT_REMOVEDIR);
    case FUSE_RENAME:
    case FUSE_RENAME2:
        return rename_name(call);
    case FUSE_OPEN:
        return open_node(call, ((const struct fuse_open_in *)body)->flags);
    case FUSE_OPENDIR:
        return open_node(call, O_RDONLY | O_DIRECTORY);
    case FUSE_CREATE:
        return create(call);
    case FUSE_READ:
        return read_file(call);
    case FUSE_WRITE:
        return write_file(call);
    case FUSE_READDIR:
        return read_directory(call);
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
        return failed_with(fsync(((const struct fuse_fsync_in *)body)->fh));
    case FUSE_FLUSH:
        return 0;
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
        return failed_with(close(((const struct fuse_release_in *)body)->fh));
    case FUSE_STATFS:
        return file_system(call);
    default:
        return ENOSYS;
    }
}
