package main

// A record in its one encoding: schemas/README.md, "One encoding". The first flaw in the order of the bytes is said.

import (
	"encoding/binary"
	"math"
	"unicode/utf8"
)

const itemsMaxStrict = 100_000

type flaw struct {
	name string
	at   int
}

type tooMany struct{}

type strictReader struct {
	data  []byte
	at    int
	items int64
}

// decodeStrict reads one whole record of a known schema in its one encoding.
func decodeStrict(data []byte, schema *Schema) (record Record, err error) {
	reader := &strictReader{data: data, at: 10, items: math.MaxInt64}
	if schema.Name == "ClientUpdate" {
		reader.items = itemsMaxStrict
	}
	defer func() {
		switch caught := recover().(type) {
		case nil:
		case flaw:
			record, err = nil, undecodable(112, schema.Name, caught.name, int64(caught.at))
		case tooMany:
			record, err = nil, undecodable(110, int64(itemsMaxStrict), schema.Name)
		default:
			panic(caught)
		}
	}()
	record = reader.read(schema.root).(Record)
	if left := len(data) - reader.at; left > 0 {
		return nil, undecodable(109, int64(left), schema.Name)
	}
	return record, nil
}

func (r *strictReader) number() int64 {
	begin := r.at
	var value uint64
	for i := 0; ; i++ {
		if i == 10 {
			panic(flaw{"wide_number", begin})
		}
		if r.at >= len(r.data) {
			panic(flaw{"cut_short", begin})
		}
		b := r.data[r.at]
		r.at++
		if i == 9 && b < 0x80 && b > 1 {
			panic(flaw{"wide_number", begin})
		}
		value |= uint64(b&0x7f) << (7 * i)
		if b >= 0x80 {
			continue
		}
		if b == 0 && i > 0 {
			panic(flaw{"long_number", begin})
		}
		return int64(value>>1) ^ -int64(value&1)
	}
}

func (r *strictReader) bytes() []byte {
	begin := r.at
	length := r.number()
	if length < 0 {
		panic(flaw{"negative_length", begin})
	}
	if length > int64(len(r.data)-r.at) {
		panic(flaw{"cut_short", begin})
	}
	part := r.data[r.at : r.at+int(length)]
	r.at += int(length)
	return part
}

func (r *strictReader) text() string {
	begin := r.at
	part := r.bytes()
	if !utf8.Valid(part) {
		panic(flaw{"not_utf8", begin})
	}
	return string(part)
}

func (r *strictReader) block(each func()) {
	begin := r.at
	count := r.number()
	if count < 0 {
		panic(flaw{"blocks", begin})
	}
	if count == 0 {
		return
	}
	if r.items < count {
		panic(tooMany{})
	}
	r.items -= count
	for ; count > 0; count-- {
		each()
	}
	begin = r.at
	if r.number() != 0 {
		panic(flaw{"blocks", begin})
	}
}

func (r *strictReader) read(one *node) any {
	begin := r.at
	switch one.kind {
	case "long":
		number := r.number()
		if one.isTime && (number < createdMin || number > createdMax) {
			panic(flaw{"no_time", begin})
		}
		return number
	case "double":
		if r.at+8 > len(r.data) {
			panic(flaw{"cut_short", begin})
		}
		r.at += 8
		return math.Float64frombits(binary.LittleEndian.Uint64(r.data[begin:]))
	case "string":
		return r.text()
	case "bytes":
		return r.bytes()
	case "enum":
		index := r.number()
		if index < 0 || index >= int64(len(one.symbols)) {
			panic(flaw{"no_symbol", begin})
		}
		return one.symbols[index]
	case "array":
		found := []any{}
		r.block(func() { found = append(found, r.read(one.items)) })
		return found
	case "map":
		found, known := Map{}, map[string]bool{}
		r.block(func() {
			at := r.at
			key := r.text()
			if known[key] {
				panic(flaw{"key_twice", at})
			}
			known[key] = true
			found.Keys, found.Values = append(found.Keys, key), append(found.Values, r.read(one.items))
		})
		return found
	case "record":
		found := Record{}
		for _, each := range one.fields {
			found[each.name] = r.read(each.node)
		}
		return found
	default:
		panic("no type " + one.kind)
	}
}
