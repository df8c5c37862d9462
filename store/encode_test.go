package store

import (
	"bytes"
	"encoding/base64"
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

// Items that an older version wrote stay readable, and are written again byte for
// byte.
func TestAnItemOfAnOlderVersionIsReadable(t *testing.T) {
	old := itemPrefix + base64.RawStdEncoding.EncodeToString([]byte(`{"origin":"https://a.example","refresh_token":"eA==","client_id":"id","source":"s"}`))
	i, err := decodeItem([]byte(old))
	if err != nil || i.Serial != 0 || string(i.RefreshToken.Reveal()) != "x" || i.ClientID != "id" || i.Source != "s" {
		t.Fatalf("%v, %v", i, err)
	}
	again, err := encodeItem(i)
	if err != nil || string(again) != old {
		t.Errorf("%s, %v", again, err)
	}
	i.Serial = 7
	b, err := encodeItem(i)
	if err != nil {
		t.Fatal(err)
	}
	if i, err = decodeItem(b); err != nil || i.Serial != 7 {
		t.Errorf("serial %d, %v", i.Serial, err)
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
