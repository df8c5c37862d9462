package store

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// itemPrefix names the encoding's version.
const itemPrefix = "bloq1:"

// wireItem is an item inside its encoding. []byte is base64 in JSON.
type wireItem struct {
	Origin        string    `json:"origin"`
	RefreshToken  []byte    `json:"refresh_token,omitempty"`
	ClientID      string    `json:"client_id,omitempty"`
	ClientSecret  []byte    `json:"client_secret,omitempty"`
	AccountToken  []byte    `json:"account_token,omitempty"`
	AccountExpiry time.Time `json:"account_expiry,omitzero"`
	Source        string    `json:"source,omitempty"`
}

// encodeItem makes one line of printable ASCII. gnome-keyring has lost a whole
// collection over a newline in a secret, and others cut at NUL.
//
// It writes the JSON itself: the library would leave the secrets in buffers that
// nobody can clear.
func encodeItem(i Item) ([]byte, error) {
	size := 256 + 6*len(i.Origin+i.ClientID+i.Source)
	for _, s := range []Secret{i.RefreshToken, i.ClientSecret, i.AccountToken} {
		size += base64.StdEncoding.EncodedLen(len(s.Reveal()))
	}
	plain := make([]byte, 0, size) // never grown, so that there is one copy to clear
	defer func() { clear(plain) }()
	var failed error
	text := func(name string, v any) {
		quoted, err := json.Marshal(v)
		failed = errors.Join(failed, err)
		plain = append(append(append(plain, '"'), name+`":`...), quoted...)
		plain = append(plain, ',')
	}
	secret := func(name string, s Secret) {
		if !s.IsZero() {
			plain = append(append(plain, '"'), name+`":"`...)
			plain = append(base64.StdEncoding.AppendEncode(plain, s.Reveal()), `",`...)
		}
	}
	plain = append(plain, '{')
	text("origin", i.Origin)
	secret("refresh_token", i.RefreshToken)
	if i.ClientID != "" {
		text("client_id", i.ClientID)
	}
	secret("client_secret", i.ClientSecret)
	secret("account_token", i.AccountToken)
	if !i.AccountExpiry.IsZero() {
		text("account_expiry", i.AccountExpiry)
	}
	if i.Source != "" {
		text("source", i.Source)
	}
	plain[len(plain)-1] = '}'
	if failed != nil {
		return nil, fmt.Errorf("encoding item: %w", failed)
	}
	out := make([]byte, 0, len(itemPrefix)+base64.RawStdEncoding.EncodedLen(len(plain)))
	return base64.RawStdEncoding.AppendEncode(append(out, itemPrefix...), plain), nil
}

// decodeItem reads what encodeItem wrote and nothing else: what it read must be
// written again in the same way. Its errors hold nothing of b.
func decodeItem(b []byte) (Item, error) {
	body, ok := bytes.CutPrefix(b, []byte(itemPrefix))
	if !ok {
		return Item{}, fmt.Errorf("%w: it is not of this version", ErrDamaged)
	}
	plain, err := base64.RawStdEncoding.AppendDecode(make([]byte, 0, len(body)), body)
	defer clear(plain)
	if err != nil {
		return Item{}, fmt.Errorf("%w: its encoding is broken", ErrDamaged)
	}
	var w wireItem
	err = json.Unmarshal(plain, &w)
	item := Item{
		Origin: w.Origin, RefreshToken: NewSecret(w.RefreshToken), ClientSecret: NewSecret(w.ClientSecret),
		AccountToken: NewSecret(w.AccountToken), AccountExpiry: w.AccountExpiry, ClientID: w.ClientID, Source: w.Source,
	}
	if err == nil {
		var again []byte
		again, err = encodeItem(item)
		defer clear(again)
		if !bytes.Equal(again, b) {
			err = ErrDamaged
		}
	}
	if err != nil {
		item.Wipe()
		return Item{}, fmt.Errorf("%w: its content is broken", ErrDamaged)
	}
	return item, nil
}
