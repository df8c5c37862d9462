package store

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func sample() Item {
	return Item{
		Origin: "https://accounts.bloq.example", RefreshToken: NewSecret([]byte("refresh\n\x00\xff")),
		AccountToken: NewSecret([]byte("account")), AccountExpiry: time.Unix(1_800_000_000, 0).UTC(),
	}
}

func mustEncode(t testing.TB) []byte {
	b, err := encodeItem(sample())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The JSON is written by hand, and read by the library. Items of before must stay
// readable, so it has to be what the library would write.
func TestAnItemIsTheJSONThatTheLibraryWrites(t *testing.T) {
	full := sample()
	full.Origin, full.ClientID, full.Source = "https://a&b.example/<\"\u2028", "id\\", "source"
	full.ClientSecret = NewSecret([]byte("client"))
	for _, i := range []Item{full, sample(), {Origin: "x"}, {}} {
		want, err := json.Marshal(wireItem{
			Origin: i.Origin, RefreshToken: i.RefreshToken.Reveal(), ClientSecret: i.ClientSecret.Reveal(),
			AccountToken: i.AccountToken.Reveal(), AccountExpiry: i.AccountExpiry, ClientID: i.ClientID, Source: i.Source,
		})
		if err != nil {
			t.Fatal(err)
		}
		b, err := encodeItem(i)
		if err != nil || string(b) != itemPrefix+base64.RawStdEncoding.EncodeToString(want) {
			t.Errorf("%v\n%s\n%s", err, b, want)
		}
		if got, err := decodeItem(b); err != nil || !got.Equal(i) {
			t.Errorf("%v, %v", got, err)
		}
	}
}

func TestAnItemIsOneLineOfASCII(t *testing.T) {
	for _, c := range mustEncode(t) {
		if c <= ' ' || c > '~' {
			t.Fatalf("byte %#x", c)
		}
	}
}

func TestADamagedItemIsRefused(t *testing.T) {
	whole := mustEncode(t)
	for i := range whole {
		if _, err := decodeItem(whole[:i]); !errors.Is(err, ErrDamaged) {
			t.Errorf("the first %d bytes: %v", i, err)
		}
	}
	for _, b := range [][]byte{
		append(bytes.Clone(whole), 'A'), append(bytes.Clone(whole), '\n'), append([]byte(" "), whole...),
		bytes.Replace(whole, []byte("bloq1"), []byte("bloq2"), 1), []byte("bloq1:"), []byte("bloq1:bnVsbA=="),
	} {
		if _, err := decodeItem(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%.20q…: %v", b, err)
		}
	}
}

func FuzzDecodeItemReadsOnlyWhatEncodeItemWrites(f *testing.F) {
	f.Add(mustEncode(f))
	f.Add([]byte("bloq1:e30"))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := decodeItem(b)
		if err != nil {
			return
		}
		again, err := encodeItem(i)
		if err != nil {
			return // a year that RFC 3339 has no room for
		}
		j, err := decodeItem(again)
		if err != nil || j.Origin != i.Origin || !j.RefreshToken.Equal(i.RefreshToken) || !j.ClientSecret.Equal(i.ClientSecret) ||
			!j.AccountToken.Equal(i.AccountToken) || !j.AccountExpiry.Equal(i.AccountExpiry) {
			t.Fatalf("%q is read as one item and written as another (%v)", b, err)
		}
	})
}
