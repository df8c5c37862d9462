package store_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"bloq-agent/store"

	"github.com/rs/zerolog"
)

func TestASecretPrintsNothingOfItself(t *testing.T) {
	s := store.NewSecret([]byte("canary"))
	item := store.Item{Origin: "o", RefreshToken: s}
	type nested struct {
		Name   string
		Secret store.Secret
		Ptr    *store.Secret
		Map    map[string]store.Secret
		List   []store.Secret
	}
	n := nested{"n", s, &s, map[string]store.Secret{"k": s}, []store.Secret{s}}
	var out strings.Builder
	for _, flags := range []string{"", "+", "#", " ", "0", "-", "+#", "40", ".3", "-40.2"} {
		for _, verb := range "vTtbcdoOqxXUeEfFgGsp" {
			for _, v := range []any{s, &s, item, n, []store.Secret{s}} {
				fmt.Fprintf(&out, "%"+flags+string(verb)+"\n", v)
			}
		}
	}
	fmt.Fprintln(&out, s, s.String(), s.GoString())
	for _, v := range []any{s, &s, item, n} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	b, err := xml.Marshal(item)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "s", s, "i", item)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "s", s, "n", n)
	l := zerolog.New(&out)
	l.Info().Interface("s", s).Any("n", n).Stringer("t", s).Str("u", s.String()).Fields(map[string]any{"f": s}).Msg("m")
	console := zerolog.New(zerolog.ConsoleWriter{Out: &out})
	console.Info().Interface("s", s).Msg("m")
	for _, form := range []string{"canary", "63616e617279", "63616E617279", "Y2FuYXJ5", "99 97 110", "0x63"} {
		if i := strings.Index(out.String(), form); i >= 0 {
			t.Errorf("printed as %s", out.String()[max(0, i-60):i+20])
		}
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Error("nothing says that something was left out")
	}
}

func TestASecretIsNotReadFromARedactedOne(t *testing.T) {
	var s store.Secret
	if json.Unmarshal([]byte(`"[redacted]"`), &s) == nil || s.UnmarshalText([]byte("x")) == nil || !s.IsZero() {
		t.Error("a secret was unmarshalled")
	}
}

func TestWipeAndClone(t *testing.T) {
	b := []byte("canary")
	s := store.NewSecret(b)
	c := s.Clone()
	s.Wipe()
	if !bytes.Equal(b, make([]byte, 6)) || !s.IsZero() {
		t.Errorf("after Wipe: %q", b)
	}
	if string(c.Reveal()) != "canary" || !c.Equal(store.NewSecret([]byte("canary"))) || c.Equal(s) {
		t.Error("Wipe reached the clone")
	}
}
