package walk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// The file of the small types: a line that says what it is, the SHA-256 of the
// rest in hexadecimal and a line end, the types in the format of
// /sys/kernel/btf/vmlinux. Its name holds the kernel's build.
const (
	cachePrefix = "types-"
	cacheMagic  = "ipc-cr kernel types 1\n"
	cacheHead   = len(cacheMagic) + 2*sha256.Size + 1
)

// kernelTypes are the types that the loader is given.
type kernelTypes struct {
	spec *btf.Spec
}

// withTypes calls use with what the kernel's structures look like: as kept for
// this build of the kernel, or, if there is nothing, it cannot be trusted or use
// cannot do with it, as the kernel describes them, which is kept then.
func withTypes(dir *state.Dir, use func(*kernelTypes) error) error {
	name := cacheName()
	if spec, err := readCache(dir, name); err == nil {
		if err := use(&kernelTypes{spec}); err == nil || !typesToBlame(err) {
			return err
		}
	}
	content, err := smallTypes()
	if err != nil {
		return err
	}
	spec, err := specOf(content)
	if err != nil {
		return fmt.Errorf("read the types of the kernel again: %w", err)
	}
	if err := use(&kernelTypes{spec}); err != nil {
		return err
	}
	writeCache(dir, name, content)
	return nil
}

// typesToBlame reports whether other types might help. A kernel that is out of
// memory or does not permit the program refuses it with any.
func typesToBlame(err error) bool {
	return !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.EPERM)
}

// cacheName is the name for the running kernel, "" if nothing tells it from
// others: the build id among its notes does.
func cacheName() string {
	notes, err := os.ReadFile("/sys/kernel/notes")
	var uts unix.Utsname
	if err != nil || !hasBuildID(notes) || unix.Uname(&uts) != nil {
		return ""
	}
	sum := sha256.New()
	sum.Write(notes)
	sum.Write(uts.Release[:])
	sum.Write(uts.Version[:])
	return cachePrefix + hex.EncodeToString(sum.Sum(nil)[:16])
}

// hasBuildID looks for the note of the linker's --build-id in notes of elf(5): two
// kernels that were built without may have all others in common.
func hasBuildID(notes []byte) bool {
	const head, buildID = 12, 3 // NT_GNU_BUILD_ID
	aligned := func(n uint32) int { return (int(n) + 3) &^ 3 }
	for len(notes) >= head {
		name, desc := binary.NativeEndian.Uint32(notes), binary.NativeEndian.Uint32(notes[4:])
		kind, rest := binary.NativeEndian.Uint32(notes[8:]), notes[head:]
		whole := aligned(name) + aligned(desc)
		if whole > len(rest) {
			return false
		}
		if kind == buildID && string(rest[:name]) == "GNU\x00" && desc > 0 {
			return true
		}
		notes = rest[whole:]
	}
	return false
}

func readCache(dir *state.Dir, name string) (*btf.Spec, error) {
	if dir == nil || name == "" {
		return nil, unix.ENOENT
	}
	file, err := dir.Read(name)
	if err != nil {
		return nil, err
	}
	content, err := checkCache(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir.Join(name), err)
	}
	return specOf(content)
}

func checkCache(file []byte) ([]byte, error) {
	if len(file) < cacheHead || !bytes.HasPrefix(file, []byte(cacheMagic)) {
		return nil, fmt.Errorf("no types of a kernel")
	}
	content := file[cacheHead:]
	if !bytes.Equal(file[:cacheHead], cacheHeader(content)) {
		return nil, fmt.Errorf("damaged")
	}
	return content, nil
}

func cacheHeader(content []byte) []byte {
	sum := sha256.Sum256(content)
	return append([]byte(cacheMagic), hex.EncodeToString(sum[:])+"\n"...)
}

// writeCache keeps the types. If it cannot, the next time takes longer.
func writeCache(dir *state.Dir, name string, content []byte) {
	if dir == nil || name == "" {
		return
	}
	_ = dir.Replace(name, append(cacheHeader(content), content...))
}
