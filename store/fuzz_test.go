package store

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
)

// What opens is an item that was sealed whole; what does not is refused, and
// left as it is.
func FuzzAFileThatOpensIsWhole(f *testing.F) {
	dir := f.TempDir()
	key := NewKey(filepath.Join(dir, "key"), "")
	files := NewFile(dir, key)
	id, ctx := NewID(), context.Background()
	item := Item{Origin: "https://bloq.example", RefreshToken: NewSecret([]byte("a-refresh-token"))}
	if err := files.Save(ctx, id, item); err != nil {
		f.Fatal(err)
	}
	path := files.path(id)
	sealed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed, 0, byte(0))
	f.Add(sealed, 30, byte(1))
	f.Add(sealed, len(sealed)-1, byte(1))
	f.Add(sealed[:len(sealed)-1], 0, byte(0))
	f.Add([]byte("age-encryption.org/v1\n-> X25519 "), 0, byte(0))
	f.Add([]byte{}, 0, byte(0))
	f.Fuzz(func(t *testing.T, content []byte, at int, flip byte) {
		if len(content) > 0 {
			content = bytes.Clone(content)
			content[uint(at)%uint(len(content))] ^= flip
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := files.Load(ctx, id)
		if err == nil && (!bytes.Equal(content, sealed) || !got.Equal(item)) {
			t.Fatalf("%q opens, and holds a login of %s", content, got.Origin)
		}
		if left, err := os.ReadFile(path); err != nil || !bytes.Equal(left, content) {
			t.Fatalf("it was changed to %q (%v)", left, err)
		}
	})
}
