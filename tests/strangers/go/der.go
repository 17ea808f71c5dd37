package main

// Certificates of tasks whose records are canonical: canonical DER, and the profile of schemas/README.md.

import (
	"bytes"
	"errors"
	"math/big"
	"sort"
	"time"
	"unicode/utf8"
)

var (
	errDER     = errors.New("not canonical DER")
	errProfile = errors.New("not a certificate of the profile")
	ed25519ID  = []byte{0x30, 5, 6, 3, 0x2b, 0x65, 0x70}
)

type derValue struct {
	tag             byte
	contents, whole []byte
}

// strictCertificate is what is used of a certificate. key and signature are nil where they are none of Ed25519.
type strictCertificate struct {
	signed, signature, issuer, subject, key []byte
	serial                                  *big.Int
	notBeforeMs, notAfterMs                 int64
	uris                                    []string
	isAuthority                             bool
	known                                   map[string][]byte // extensions
}

func derAt(data []byte) (derValue, []byte, error) {
	if len(data) < 2 {
		return derValue{}, nil, errDER
	}
	tag, length, at := data[0], int(data[1]), 2
	if tag&0x1f == 0x1f || tag&0xc0 == 0x40 || tag&0xc0 == 0xc0 {
		return derValue{}, nil, errDER
	}
	if length > 0x7f {
		width := length & 0x7f
		if width == 0 || width > 4 || at+width > len(data) || data[at] == 0 {
			return derValue{}, nil, errDER
		}
		length = 0
		for _, b := range data[at : at+width] {
			length = length<<8 | int(b)
		}
		at += width
		if length <= 0x7f {
			return derValue{}, nil, errDER
		}
	}
	if at+length > len(data) {
		return derValue{}, nil, errDER
	}
	return derValue{tag, data[at : at+length], data[:at+length]}, data[at+length:], nil
}

func derOnly(data []byte) (derValue, error) {
	value, rest, err := derAt(data)
	if err == nil && len(rest) > 0 {
		err = errDER
	}
	return value, err
}

func derChildren(data []byte) ([]derValue, error) {
	var found []derValue
	for len(data) > 0 {
		value, rest, err := derAt(data)
		if err != nil {
			return nil, err
		}
		found, data = append(found, value), rest
	}
	return found, nil
}

// requireDER looks at a value all the way down.
func requireDER(data []byte, depth int) error {
	value, err := derOnly(data)
	if err != nil {
		return err
	}
	universal := value.tag&0xc0 == 0
	switch {
	case depth > 16:
		return errDER
	case value.tag&0x20 == 0:
		if universal && !canonicalPrimitive(value) {
			return errDER
		}
		return nil
	case universal && value.tag != 0x30 && value.tag != 0x31:
		return errDER
	}
	inner, err := derChildren(value.contents)
	if err != nil {
		return err
	}
	sorted := sort.SliceIsSorted(inner, func(i, j int) bool { return bytes.Compare(inner[i].whole, inner[j].whole) < 0 })
	if value.tag == 0x31 && !sorted {
		return errDER
	}
	for _, one := range inner {
		if err := requireDER(one.whole, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func canonicalPrimitive(value derValue) bool {
	c := value.contents
	switch value.tag {
	case 0x01:
		return len(c) == 1 && (c[0] == 0 || c[0] == 0xff)
	case 0x02, 0x0a:
		if len(c) < 2 {
			return len(c) == 1
		}
		return !(c[0] == 0 && c[1] < 0x80) && !(c[0] == 0xff && c[1] >= 0x80)
	case 0x03:
		if len(c) == 0 || c[0] > 7 || len(c) == 1 && c[0] > 0 {
			return false
		}
		return len(c) == 1 || c[len(c)-1]&(1<<c[0]-1) == 0
	case 0x05:
		return len(c) == 0
	case 0x06:
		if len(c) == 0 || c[len(c)-1] >= 0x80 {
			return false
		}
		for i := range c {
			if (i == 0 || c[i-1] < 0x80) && c[i] == 0x80 {
				return false
			}
		}
		return true
	case 0x0c:
		return utf8.Valid(c)
	case 0x13:
		for _, b := range c {
			letter := b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b >= '0' && b <= '9'
			if !letter && !bytes.ContainsRune([]byte(" '()+,-./:=?"), rune(b)) {
				return false
			}
		}
		return true
	case 0x16:
		for _, b := range c {
			if b >= 0x80 {
				return false
			}
		}
		return true
	case 0x17, 0x18:
		_, ok := derTime(value)
		return ok
	case 0x04, 0x12, 0x14, 0x1a, 0x1c, 0x1e:
		return true
	default:
		return false
	}
}

func derTime(value derValue) (time.Time, bool) {
	layout, text := map[byte]string{0x17: "060102150405Z", 0x18: "20060102150405Z"}[value.tag], string(value.contents)
	if len(text) != len(layout) || layout == "" {
		return time.Time{}, false
	}
	for _, b := range value.contents[:len(text)-1] {
		if b < '0' || b > '9' {
			return time.Time{}, false
		}
	}
	if value.tag == 0x17 { // years 1950 to 2049
		century := "20"
		if text[:2] >= "50" {
			century = "19"
		}
		layout, text = "20060102150405Z", century+text
	}
	found, err := time.Parse(layout, text)
	return found, err == nil
}

func (value derValue) wholeBytes() ([]byte, error) {
	if value.tag != 0x03 || value.contents[0] != 0 {
		return nil, errProfile
	}
	return value.contents[1:], nil
}

func (value derValue) timeMs() (int64, error) {
	found, ok := derTime(value)
	if !ok || (value.tag == 0x18) == (found.Year() >= 1950 && found.Year() <= 2049) {
		return 0, errProfile
	}
	return found.Unix() * 1000, nil
}

func sequence(value derValue, counts ...int) ([]derValue, error) {
	if value.tag != 0x30 {
		return nil, errProfile
	}
	inner, err := derChildren(value.contents)
	if err != nil {
		return nil, err
	}
	for _, count := range counts {
		if len(inner) == count {
			return inner, nil
		}
	}
	return inner, errProfile
}

func readStrictCertificate(der []byte) (*strictCertificate, error) {
	if err := requireDER(der, 0); err != nil {
		return nil, errDER
	}
	outer, _ := derOnly(der)
	parts, err := sequence(outer, 3)
	if err != nil {
		return nil, errProfile
	}
	fields, err := sequence(parts[0], 8)
	if err != nil {
		return nil, errProfile
	}
	if fields[0].tag != 0xa0 || !bytes.Equal(fields[0].contents, []byte{2, 1, 2}) || !bytes.Equal(fields[2].whole, parts[1].whole) {
		return nil, errProfile
	}
	found := &strictCertificate{signed: parts[0].whole, issuer: fields[3].whole, subject: fields[5].whole}
	if fields[3].tag != 0x30 || fields[5].tag != 0x30 || parts[1].tag != 0x30 {
		return nil, errProfile
	}
	for _, step := range []func() error{
		func() error { return found.extensions(fields[7]) },
		func() error { return found.times(fields[4]) },
		func() error { return found.number(fields[1]) },
		func() error { return found.publicKey(fields[6]) },
		func() error {
			bits, err := parts[2].wholeBytes()
			if bytes.Equal(parts[1].whole, ed25519ID) {
				found.signature = bits
				return err
			}
			return nil
		},
		found.inner,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (one *strictCertificate) times(value derValue) error {
	parts, err := sequence(value, 2)
	if err != nil {
		return err
	}
	if one.notBeforeMs, err = parts[0].timeMs(); err != nil {
		return err
	}
	one.notAfterMs, err = parts[1].timeMs()
	return err
}

func (one *strictCertificate) number(value derValue) error {
	if value.tag != 0x02 || value.contents[0] >= 0x80 || len(value.contents) > 20 {
		return errProfile
	}
	one.serial = new(big.Int).SetBytes(value.contents)
	if one.serial.Sign() == 0 {
		return errProfile
	}
	return nil
}

func (one *strictCertificate) publicKey(value derValue) error {
	parts, err := sequence(value, 2)
	if err != nil {
		return err
	}
	bits, err := parts[1].wholeBytes()
	if err != nil || parts[0].tag != 0x30 {
		return errProfile
	}
	if bytes.Equal(parts[0].whole, ed25519ID) && len(bits) == 32 {
		one.key = bits
	}
	return nil
}

func (one *strictCertificate) extensions(value derValue) error {
	if value.tag != 0xa3 {
		return errProfile
	}
	lists, err := derChildren(value.contents)
	if err != nil || len(lists) != 1 { // an explicit tag is around one value
		return errProfile
	}
	entries, err := sequence(lists[0])
	if err != errProfile || len(entries) == 0 { // sequence without a count says so
		return errProfile
	}
	known := map[string][]byte{}
	for _, entry := range entries {
		parts, err := sequence(entry, 2, 3)
		if err != nil || parts[0].tag != 0x06 || parts[len(parts)-1].tag != 0x04 {
			return errProfile
		}
		if len(parts) == 3 && !bytes.Equal(parts[1].whole, []byte{1, 1, 0xff}) {
			return errProfile
		}
		if _, twice := known[string(parts[0].contents)]; twice {
			return errProfile
		}
		known[string(parts[0].contents)] = parts[len(parts)-1].contents
	}
	one.known = known
	return nil
}

// inner looks at the contents of the extensions that count: last, when all else is of the profile.
func (one *strictCertificate) inner() error {
	if contents, there := one.known["\x55\x1d\x11"]; there {
		if err := one.names(contents); err != nil {
			return err
		}
	}
	if contents, there := one.known["\x55\x1d\x13"]; there {
		return one.constraints(contents)
	}
	return nil
}

func (one *strictCertificate) names(contents []byte) error {
	if requireDER(contents, 0) != nil {
		return errDER
	}
	value, _ := derOnly(contents)
	names, err := sequence(value)
	if value.tag != 0x30 {
		return err
	}
	for _, name := range names {
		if name.tag == 0x86 {
			one.uris = append(one.uris, latin1(name.contents))
		}
	}
	return nil
}

func latin1(data []byte) string {
	runes := make([]rune, len(data))
	for i, b := range data {
		runes[i] = rune(b)
	}
	return string(runes)
}

func (one *strictCertificate) constraints(contents []byte) error {
	if requireDER(contents, 0) != nil {
		return errDER
	}
	value, _ := derOnly(contents)
	said, err := sequence(value)
	if value.tag != 0x30 {
		return err
	}
	if len(said) > 0 && said[0].tag == 0x01 {
		if said[0].contents[0] != 0xff {
			return errProfile
		}
		one.isAuthority, said = true, said[1:]
	}
	for _, each := range said {
		if each.tag != 0x02 {
			return errProfile
		}
	}
	return nil
}

// subjectOf is the subject's bytes in a CA certificate.
func subjectOf(der []byte) []byte {
	outer, _ := derOnly(der)
	parts, _ := derChildren(outer.contents)
	fields, _ := derChildren(parts[0].contents)
	if fields[0].tag == 0xa0 {
		return fields[5].whole
	}
	return fields[4].whole
}
