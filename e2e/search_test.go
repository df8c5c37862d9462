package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
)

// searched counts what the worlds of this run were searched for, and where.
var searched struct{ worlds, secrets, places atomic.Int64 }

// search looks for every secret of this world in all that it has left behind:
// logs with what was printed at a crash, what people saw, command lines,
// environments, and files, temporary ones too. It is the end of every test.
func (w *world) search() {
	secrets := w.secrets.all()
	if len(secrets) < 2 {
		return // the password alone, which nobody used
	}
	places := map[string][]byte{
		"the daemon's log":        []byte(w.log.String()),
		"what people see":         w.said,
		"a command line":          []byte(fmt.Sprint(w.started)),
		"a program's environment": []byte(strings.Join(w.env, "\n")),
	}
	if err := w.read(places); err != nil {
		w.t.Errorf("searching for secrets: %v", err)
	}
	searched.worlds.Add(1)
	searched.secrets.Add(int64(len(secrets)))
	searched.places.Add(int64(len(places)))
	for secret, what := range secrets {
		for _, part := range parts(secret) {
			for place, content := range places {
				if bytes.Contains(content, []byte(part)) {
					w.t.Errorf("%s holds the %s", place, what)
				}
			}
		}
	}
}

// read takes every file of the world but those in w.holds, where the test
// itself has put secrets, the sinks, which are there to hold one, and the key of
// the file store.
func (w *world) read(places map[string][]byte) error {
	return filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		held := slices.Contains(w.holds, path) || strings.HasPrefix(path, w.dir+"/sinks") || path == w.dir+"/prometheus" || d != nil && d.Name() == "identity.txt"
		switch {
		case os.IsNotExist(err):
			return nil
		case err != nil:
			return err
		case held && d.IsDir():
			return filepath.SkipDir
		case held || !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		places[path] = b
		return err
	})
}

// printsSecrets reports whether a program is there to print a secret.
func printsSecrets(name string, args []string) bool {
	return name != "bloq-agent" || slices.Contains(args, "create") || slices.Contains(args, "exec")
}
