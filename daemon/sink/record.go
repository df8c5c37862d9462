package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"bloq-agent/store/trusted"
)

// A record is a file that we have written, or were about to write. The file at
// Path is ours if it is one of Files, and so is Temp beside it.
type record struct {
	Path    string `json:"path"`
	Profile string `json:"profile"`
	Temp    string `json:"temp,omitempty"`
	Files   []ID   `json:"files"`
}

// readRecords reads what save has written. Without it no file is ours to remove
// or to replace.
func readRecords(path string) (list []record, data []byte, err error) {
	data, err = trusted.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return slices.DeleteFunc(list, func(r record) bool { return !filepath.IsAbs(r.Path) }), data, nil
}

// Check says why a Keeper that has its record at path would refuse to write s, as
// far as that can be said beforehand.
func Check(path string, s Sink) error {
	list, _, err := readRecords(path)
	if err != nil {
		return err
	}
	var ours []ID
	for _, r := range list {
		if r.Path == s.Path {
			ours = r.Files
		}
	}
	return check(s.Path, ours)
}

// load takes over what a Keeper before this one has written.
func (k *Keeper) load(o Options) map[string]*file {
	list, data, err := readRecords(o.Record)
	if err != nil {
		o.On(Event{What: Unread, Err: err})
	}
	k.saving.Lock()
	k.recorded, k.unread = data, err
	k.saving.Unlock()
	files := map[string]*file{}
	for _, r := range list {
		files[r.Path] = &file{path: r.Path, have: Sink{Path: r.Path, Profile: r.Profile}, ours: true, temp: r.Temp, ids: r.Files}
	}
	return files
}

// Unread says why it is not known what a Keeper before this one has written; nil
// if it is.
func (k *Keeper) Unread() error {
	k.saving.Lock()
	defer k.saving.Unlock()
	return k.unread
}

// Paths are those of the files that may be there.
func (k *Keeper) Paths() []string {
	var list []string
	for _, r := range k.records() {
		list = append(list, r.Path)
	}
	return list
}

func (k *Keeper) records() []record {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := []record{}
	for _, f := range k.files {
		if f.ours {
			list = append(list, record{f.path, f.have.Profile, f.temp, f.ids})
		}
	}
	slices.SortFunc(list, func(a, b record) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// save comes before a file takes its place too, and then names both the old one
// and the new: wherever a crash comes, the next start knows the file.
func (k *Keeper) save() {
	k.saving.Lock()
	defer k.saving.Unlock()
	list := k.records()
	data, err := json.Marshal(list)
	if err == nil && (bytes.Equal(data, k.recorded) || len(list) == 0 && k.recorded == nil) {
		return
	}
	if err == nil {
		err = k.options.Save(k.options.Record, data)
	}
	if err == nil {
		k.recorded = data
	} else if text(err) != text(k.saveErr) {
		k.options.On(Event{What: Unrecorded, Err: err})
	}
	k.saveErr = err
}
