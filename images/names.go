package images

import (
	"strconv"
	"strings"
)

// The kinds of image files of one IPC namespace, as CRIU names them
// (criu/image-desc.c). All but VarKind hold objects, and are absent when there
// are none.
const (
	MsgKind = "ipcns-msg"
	VarKind = "ipcns-var"
	SemKind = "ipcns-sem"
	ShmKind = "ipcns-shm"
)

// FileName returns the name of the image of a kind for namespace number n:
// "ipcns-msg-1.img".
func FileName(kind string, n uint32) string {
	return kind + "-" + strconv.FormatUint(uint64(n), 10) + ".img"
}

// ManifestName returns the name of the JSON file of namespace number n:
// "ipc-cr-1.json".
func ManifestName(n uint32) string {
	return "ipc-cr-" + strconv.FormatUint(uint64(n), 10) + ".json"
}

// ParseManifestName returns the number in the base name of a JSON file. ok is
// false for a name that ManifestName does not make.
func ParseManifestName(name string) (n uint32, ok bool) {
	text, isJSON := strings.CutSuffix(name, ".json")
	number, err := strconv.ParseUint(strings.TrimPrefix(text, "ipc-cr-"), 10, 32)
	n = uint32(number)
	return n, isJSON && err == nil && ManifestName(n) == name
}

// ParseFileName takes a file's base name apart into its kind and its number. ok
// is false for a name that FileName does not make.
func ParseFileName(name string) (kind string, n uint32, ok bool) {
	stem, isImage := strings.CutSuffix(name, ".img")
	i := strings.LastIndexByte(stem, '-')
	if !isImage || i < 0 {
		return "", 0, false
	}
	number, err := strconv.ParseUint(stem[i+1:], 10, 32)
	if err != nil {
		return "", 0, false
	}
	kind, n = stem[:i], uint32(number)
	switch kind {
	case MsgKind, VarKind, SemKind, ShmKind:
		return kind, n, FileName(kind, n) == name
	}
	return "", 0, false
}
