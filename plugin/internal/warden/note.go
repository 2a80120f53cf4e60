package warden

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/state"
)

// noteFormat is raised when an older ipc-cr could misread a note or a claim.
const noteFormat = 1

// note is the content of a warden's file in the state directory.
type note struct {
	Format  int           `json:"format"`
	BootID  string        `json:"boot_id"`
	Created string        `json:"created"` // RFC 3339
	CRIU    state.Process `json:"criu"`
	Warden  state.Process `json:"warden"`
	Images  *imagesNote   `json:"images,omitempty"`
}

// imagesNote says which files of which directory are, or are about to be, set
// aside. The path leads to the directory, device and inode prove that it is it.
type imagesNote struct {
	Path  string   `json:"path"`
	Dev   uint64   `json:"device"`
	Inode uint64   `json:"inode"`
	Names []string `json:"names"`
}

func newNote(criu, warden state.Process) (note, error) {
	boot, err := bootID()
	return note{
		Format: noteFormat, BootID: boot, Created: time.Now().Format(time.RFC3339),
		CRIU: criu, Warden: warden,
	}, err
}

func (n *note) encode() ([]byte, error) { return json.Marshal(n) }

// Bounds of a note: more than CRIU has kinds of objects and Linux has path.
const (
	maxNames  = 64
	maxName   = 64
	maxPath   = 4096
	maxBootID = 64
)

// parseNote reads what may have been damaged or planted.
func parseNote(content []byte) (note, error) {
	var n note
	if err := decodeStrictly(content, &n); err != nil {
		return note{}, err
	}
	if n.Format != noteFormat {
		return note{}, fmt.Errorf("format %d, this ipc-cr knows %d", n.Format, noteFormat)
	}
	if n.BootID == "" || len(n.BootID) > maxBootID || n.CRIU.PID <= 0 || n.Warden.PID <= 0 {
		return note{}, errors.New("without boot, CRIU or warden")
	}
	if n.Images == nil {
		return n, nil
	}
	return n, n.Images.check()
}

func (n *imagesNote) check() error {
	if !filepath.IsAbs(n.Path) || len(n.Path) > maxPath || strings.ContainsRune(n.Path, 0) {
		return fmt.Errorf("%.80q is no absolute path", n.Path)
	}
	return checkNames(n.Names)
}

// checkNames is all that stands between a file's claim and root's rename(2).
func checkNames(names []string) error {
	if len(names) > maxNames {
		return fmt.Errorf("%d names, more than %d", len(names), maxNames)
	}
	seen := map[string]bool{}
	for _, name := range names {
		if !isImageName(name) {
			return fmt.Errorf("%.80q is not the name of an ipcns image", name)
		}
		if seen[name] {
			return fmt.Errorf("%q is there twice", name)
		}
		seen[name] = true
	}
	return nil
}

// isImageName accepts ipcns-KIND-N.img, with any kind that CRIU may come to.
func isImageName(name string) bool {
	middle, ok := strings.CutPrefix(name, "ipcns-")
	middle, img := strings.CutSuffix(middle, ".img")
	return ok && img && middle != "" && len(name) <= maxName &&
		strings.Trim(middle, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func decodeStrictly(content []byte, into any) error {
	in := json.NewDecoder(bytes.NewReader(content))
	in.DisallowUnknownFields()
	if err := in.Decode(into); err != nil {
		return fmt.Errorf("not of this ipc-cr: %w", err)
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return errors.New("not of this ipc-cr: something follows it")
	}
	return nil
}
