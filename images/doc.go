// Package images reads and writes the image files in which CRIU keeps an IPC
// namespace, and the directory that holds them.
//
// The codecs are pure: they take an io.Reader or io.Writer, stream one message
// at a time, and know nothing of the kernel. What they write is byte for byte
// what CRIU writes (criu/ipc_ns.c, images/ipc-msg.proto, images/ipc-var.proto).
// What they read may come from anybody: every length is checked before it is
// believed, and every error says which file and which offset.
//
// An image file is
//
//	u32 0x54564319   every image (IMG_COMMON_MAGIC)
//	u32 magic        the kind of the file: IPCNS_MSG, IPC_VAR
//	records          u32 length, then a protobuf message of that length
//
// with all numbers little-endian. ipcns-var has one record. ipcns-msg has, for
// each queue:
//
//	record           ipc_msg_entry: id, key, owner, creator, mode, qbytes, qnum
//	qnum times:
//	  record         ipc_msg: mtype, msize
//	  payload        msize bytes, padded with zeros to a multiple of 8
//
// Beside them stands ipc-cr-<N>.json, see Manifest.
package images
