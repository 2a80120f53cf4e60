package warden

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func noteText(images string) string {
	return `{"format":1,"boot_id":"b","created":"2026-01-02T03:04:05Z","criu":{"pid":7,"start_time":8,"pid_namespace":9},` +
		`"warden":{"pid":10,"start_time":11,"pid_namespace":9}` + images + `}`
}

func imagesText(path, names string) string {
	return fmt.Sprintf(`,"images":{"path":%q,"device":1,"inode":2,"names":[%s]}`, path, names)
}

func TestParseNote(t *testing.T) {
	long := strings.Repeat("a", maxPath)
	many := strings.Repeat(`"ipcns-a-1.img",`, maxNames)
	tests := map[string]struct {
		text string
		ok   bool
	}{
		"without images":   {noteText(""), true},
		"with images":      {noteText(imagesText("/i", `"ipcns-msg-1.img","ipcns-var-1.img"`)), true},
		"empty":            {"", false},
		"something behind": {noteText("") + "x", false},
		"unknown field":    {noteText(`,"more":1`), false},
		"format":           {strings.Replace(noteText(""), `"format":1`, `"format":2`, 1), false},
		"without warden":   {strings.Replace(noteText(""), `"pid":10`, `"pid":0`, 1), false},
		"without CRIU":     {strings.Replace(noteText(""), `"pid":7`, `"pid":-7`, 1), false},
		"without boot":     {strings.Replace(noteText(""), `"b"`, `""`, 1), false},
		"long boot":        {strings.Replace(noteText(""), `"b"`, `"`+strings.Repeat("b", maxBootID+1)+`"`, 1), false},
		"relative path":    {noteText(imagesText("i", `"ipcns-msg-1.img"`)), false},
		"long path":        {noteText(imagesText("/"+long, `"ipcns-msg-1.img"`)), false},
		"NUL in the path":  {noteText(strings.Replace(imagesText("/i", `"ipcns-msg-1.img"`), "/i", `/i\u0000`, 1)), false},
		"slash":            {noteText(imagesText("/i", `"ipcns-/../1.img"`)), false},
		"other file":       {noteText(imagesText("/i", `"passwd"`)), false},
		"suffix":           {noteText(imagesText("/i", `"ipcns-msg-1.img`+Suffix+`"`)), false},
		"twice":            {noteText(imagesText("/i", `"ipcns-msg-1.img","ipcns-msg-1.img"`)), false},
		"too many":         {noteText(imagesText("/i", many+`"ipcns-msg-1.img"`)), false},
		"dots":             {noteText(imagesText("/i", `"ipcns-msg.1.img"`)), false},
		"upper case":       {noteText(imagesText("/i", `"ipcns-MSG-1.img"`)), false},
		"NUL":              {noteText(imagesText("/i", `"ipcns-msg\u0000-1.img"`)), false},
	}
	for name, test := range tests {
		if _, err := parseNote([]byte(test.text)); (err == nil) != test.ok {
			t.Errorf("%s: %v, want taken %t", name, err, test.ok)
		}
	}
}

// Whatever passes names files of one directory that are ipcns images, and
// nothing else, and is noted the same again.
func FuzzParseNote(f *testing.F) {
	f.Add([]byte(noteText("")))
	f.Add([]byte(noteText(imagesText("/i", `"ipcns-msg-1.img"`))))
	f.Fuzz(func(t *testing.T, content []byte) {
		n, err := parseNote(content)
		if err != nil {
			return
		}
		if n.Images != nil {
			if !filepath.IsAbs(n.Images.Path) || strings.ContainsRune(n.Images.Path, 0) {
				t.Errorf("path %q passed", n.Images.Path)
			}
			for _, name := range n.Images.Names {
				if filepath.Base(name) != name || !strings.HasPrefix(name, "ipcns-") || filepath.Ext(name) != ".img" || strings.ContainsAny(name, "\x00/ ") {
					t.Errorf("%q passed", name)
				}
			}
		}
		text, err := n.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseNote(text)
		if err != nil {
			t.Fatalf("what was written is refused: %v", err)
		}
		if a, _ := json.Marshal(again); string(a) != string(text) {
			t.Errorf("%s became %s", text, a)
		}
	})
}
