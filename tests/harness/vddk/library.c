/* A stand-in for VMware's library, which is proprietary: as much of its interface as nbdkit's plugin calls.
 *
 * It asks no server. In the folder that it is told to be in (libdir) are
 *
 *   stand-in/account         user and password that may log in, a line each
 *   stand-in/disks/SNAPSHOT  the disk in a snapshot, by its reference; `now` is the disk without one
 *
 * What was called for goes to the log as the real one has it: its version, and the host that it reads from.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECTOR = 512 };

typedef uint64_t Error;
enum { OK = 0, FAILED = 1, NOT_ALLOWED = 16, ASYNC = 25000 };

typedef void Log(const char *, va_list);

/* As a client fills it in. */
struct params {
	char *vm, *server, *thumbprint;
	long reserved1;
	int credentials;
	struct {
		char *user, *password, *more;
	} account;
	uint32_t port, nfc_port;
	/* The rest stays unread; there is room for whatever it is. */
	char rest[128];
};

struct info {
	uint32_t geometry[6];
	uint64_t capacity;
	int adapter, links;
	char *parent, *uuid;
	uint32_t logical, physical;
};

struct block {
	uint64_t offset, length;
};

struct blocks {
	uint32_t count;
	struct block list[];
};

struct connection {
	char *server, *snapshot;
};

struct disk {
	int file;
	uint64_t sectors;
};

static Log *log_line;
static char *folder;

static void say(const char *text, ...)
{
	va_list args;

	va_start(args, text);
	if (log_line)
		log_line(text, args);
	va_end(args);
}

Error VixDiskLib_InitEx(uint32_t major, uint32_t minor, Log *log, Log *warn, Log *panic, const char *libdir,
			const char *config)
{
	(void)major, (void)minor, (void)warn, (void)panic, (void)config;
	log_line = log;
	folder = strdup(libdir);
	say("VMware VixDiskLib (0.0.1) Release build-20261122");
	return folder ? OK : FAILED;
}

void VixDiskLib_Exit(void)
{
	free(folder);
}

char *VixDiskLib_GetErrorText(Error error, const char *locale)
{
	(void)locale;
	return strdup(error == NOT_ALLOWED ? "Cannot connect to host: incorrect user name or password"
					   : "The stand-in has no such disk");
}

void VixDiskLib_FreeErrorText(char *text)
{
	free(text);
}

struct params *VixDiskLib_AllocateConnectParams(void)
{
	return calloc(1, sizeof(struct params));
}

void VixDiskLib_FreeConnectParams(struct params *params)
{
	/* What it points to is the client's. */
	free(params);
}

/* Whether these are the two lines of the account. */
static int may_log_in(const struct params *params)
{
	char *path = NULL, *wanted = NULL;
	char found[512] = "";
	FILE *file;
	int same = 0;

	if (!params->account.user || !params->account.password ||
	    asprintf(&path, "%s/stand-in/account", folder) < 0)
		return 0;
	file = fopen(path, "r");
	if (file && asprintf(&wanted, "%s\n%s\n", params->account.user, params->account.password) >= 0) {
		found[fread(found, 1, sizeof found - 1, file)] = 0;
		same = strcmp(found, wanted) == 0;
	}
	if (file)
		fclose(file);
	free(wanted);
	free(path);
	return same;
}

Error VixDiskLib_ConnectEx(const struct params *params, char read_only, const char *snapshot, const char *transports,
			   struct connection **connection)
{
	struct connection *made;

	(void)transports;
	if (!read_only || !may_log_in(params))
		return NOT_ALLOWED;
	made = calloc(1, sizeof *made);
	if (!made)
		return FAILED;
	made->server = strdup(params->server ? params->server : "");
	made->snapshot = strdup(snapshot ? snapshot : "now");
	*connection = made;
	return made->server && made->snapshot ? OK : FAILED;
}

Error VixDiskLib_Disconnect(struct connection *connection)
{
	free(connection->server);
	free(connection->snapshot);
	free(connection);
	return OK;
}

Error VixDiskLib_Open(struct connection *connection, const char *path, uint32_t flags, struct disk **disk)
{
	struct disk *made = calloc(1, sizeof *made);
	struct stat stat;
	char *name = NULL;

	(void)flags;
	if (!made || asprintf(&name, "%s/stand-in/disks/%s", folder, connection->snapshot) < 0)
		return FAILED;
	made->file = open(name, O_RDONLY | O_CLOEXEC);
	free(name);
	if (made->file < 0 || fstat(made->file, &stat) < 0) {
		free(made);
		return FAILED;
	}
	made->sectors = stat.st_size / SECTOR;
	say("DISKLIB-LINK  : Opened 'vpxa-nfcssl://%s@%s:902' (0xa): custom, %llu sectors / 1 GB.", path,
	    connection->server, (unsigned long long)made->sectors);
	*disk = made;
	return OK;
}

const char *VixDiskLib_GetTransportMode(struct disk *disk)
{
	(void)disk;
	return "nbdssl";
}

const char *VixDiskLib_ListTransportModes(void)
{
	return "nbdssl:nbd";
}

Error VixDiskLib_Close(struct disk *disk)
{
	close(disk->file);
	free(disk);
	return OK;
}

Error VixDiskLib_GetInfo(struct disk *disk, struct info **info)
{
	*info = calloc(1, sizeof **info);
	if (!*info)
		return FAILED;
	(*info)->capacity = disk->sectors;
	(*info)->adapter = 3;
	(*info)->links = 1;
	(*info)->logical = (*info)->physical = SECTOR;
	return OK;
}

void VixDiskLib_FreeInfo(struct info *info)
{
	free(info);
}

Error VixDiskLib_Read(struct disk *disk, uint64_t from, uint64_t count, unsigned char *buffer)
{
	size_t left = count * SECTOR;
	off_t at = from * SECTOR;

	if (from > disk->sectors || count > disk->sectors - from)
		return FAILED;
	while (left > 0) {
		ssize_t some = pread(disk->file, buffer, left, at);

		if (some < 0 && errno == EINTR)
			continue;
		if (some <= 0)
			return FAILED;
		buffer += some;
		left -= some;
		at += some;
	}
	return OK;
}

Error VixDiskLib_ReadAsync(struct disk *disk, uint64_t from, uint64_t count, unsigned char *buffer,
			   void (*done)(void *, Error), void *what)
{
	done(what, VixDiskLib_Read(disk, from, count, buffer));
	return ASYNC;
}

Error VixDiskLib_Wait(struct disk *disk)
{
	(void)disk;
	return OK;
}

/* Chunks with anything but zeros in them, those beside each other as one. */
Error VixDiskLib_QueryAllocatedBlocks(struct disk *disk, uint64_t from, uint64_t count, uint64_t chunk,
				      struct blocks **blocks)
{
	unsigned char *buffer = malloc(chunk * SECTOR);
	struct blocks *found;
	uint64_t end, at;

	if (from > disk->sectors)
		from = disk->sectors;
	end = count < disk->sectors - from ? from + count : disk->sectors;
	found = calloc(1, sizeof *found + ((end - from) / chunk + 1) * sizeof(struct block));
	if (!buffer || !found)
		goto failed;
	for (at = from; at < end; at += chunk) {
		uint64_t length = end - at < chunk ? end - at : chunk;
		struct block *last = found->count ? &found->list[found->count - 1] : NULL;

		if (VixDiskLib_Read(disk, at, length, buffer) != OK)
			goto failed;
		if (buffer[0] == 0 && memcmp(buffer, buffer + 1, length * SECTOR - 1) == 0)
			continue;
		if (last && last->offset + last->length == at)
			last->length += length;
		else
			found->list[found->count++] = (struct block){at, length};
	}
	free(buffer);
	*blocks = found;
	return OK;
failed:
	free(buffer);
	free(found);
	return FAILED;
}

Error VixDiskLib_FreeBlockList(struct blocks *blocks)
{
	free(blocks);
	return OK;
}

/* Nobody writes. The plugin insists on having these. */
Error VixDiskLib_Write(void)
{
	return NOT_ALLOWED;
}

Error VixDiskLib_WriteAsync(void)
{
	return NOT_ALLOWED;
}

Error VixDiskLib_Flush(void)
{
	return NOT_ALLOWED;
}

Error VixDiskLib_Create(void)
{
	return NOT_ALLOWED;
}
