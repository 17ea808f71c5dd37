package main

// Avro by hand: schemas, fingerprints, single-object encoding (schemas/README.md, "Bytes" and "Fingerprints").

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	itemsMax       = 200_000
	uncountedBytes = 1 << 20
	createdMin     = -62135596800000
	createdMax     = 253402300799999
)

type node struct {
	kind    string
	name    string
	fields  []field
	symbols []string
	items   *node
	isTime  bool
	types   []*node // of a union
}

type field struct {
	name string
	node *node
}

// Schema is one released schema file.
type Schema struct {
	File    string
	Name    string
	Version int
	Header  []byte
	SHA256  []byte
	Form    string
	root    *node
}

// Record is a record's fields: int64, float64, string, []byte, []any, Record (records), Map.
type Record map[string]any

// Branch is a value of a union, and which of its types it is.
type Branch struct {
	Index int64
	Value any
}

// Map keeps its entries' order.
type Map struct {
	Keys   []string
	Values []any
}

// Registry is every released schema.
type Registry struct {
	byHeader map[string]*Schema
	all      []*Schema
	beforeV3 *Registry // what a policy before v3 knows
	beforeV4 *Registry // before v4
	beforeV5 *Registry // before v5
	beforeV6 *Registry // before v6
	edgeless *Registry // v6, of a task without edges
}

// sinceV3 is the first version of a record that came with fluvial/policy/v3.
var sinceV3 = map[string]int{"Guide": 1, "GuideAnnouncement": 1, "Barrier": 2, "RegionalAggregate": 2, "PartitionState": 2}

// sinceV4 is the same of fluvial/policy/v4.
var sinceV4 = map[string]int{"RegionalAggregate": 3}

// sinceV5 is the same of fluvial/policy/v5.
var sinceV5 = map[string]int{"Pardon": 1}

// sinceV6 is the same of fluvial/policy/v6.
var sinceV6 = map[string]int{"RegionalAggregate": 4, "PartitionState": 3}

// withEdges is the same of policies under which tasks have edges.
var withEdges = map[string]int{"EdgeAggregate": 1}

func isBefore(schema *Schema, since map[string]int) bool {
	first, there := since[schema.Name]
	return !there || schema.Version < first
}

// before is what is known without what came since.
func (registry *Registry) before(since map[string]int) *Registry {
	found := &Registry{byHeader: map[string]*Schema{}}
	for header, schema := range registry.byHeader {
		if isBefore(schema, since) {
			found.byHeader[header] = schema
		}
	}
	return found
}

var crcTable = func() (table [256]uint64) {
	for i := range table {
		one := uint64(i)
		for bit := 0; bit < 8; bit++ {
			one = (one >> 1) ^ (crcEmpty & -(one & 1))
		}
		table[i] = one
	}
	return
}()

const crcEmpty uint64 = 0xc15d213aa4d7a795

func crc64(data []byte) uint64 {
	one := crcEmpty
	for _, b := range data {
		one = (one >> 8) ^ crcTable[byte(one)^b]
	}
	return one
}

func loadSchemas(folder string) (*Registry, error) {
	paths, err := filepath.Glob(filepath.Join(folder, "avsc", "*.avsc"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("no schemas in %s", folder)
	}
	registry := &Registry{byHeader: map[string]*Schema{}}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		value, err := parseJSON(data)
		if err != nil {
			return nil, err
		}
		schema := schemaOf(value, filepath.Base(path))
		registry.byHeader[string(schema.Header)] = schema
		registry.all = append(registry.all, schema)
	}
	registry.edgeless = registry.before(withEdges)
	registry.beforeV6 = registry.edgeless.before(sinceV6)
	registry.beforeV5 = registry.beforeV6.before(sinceV5)
	registry.beforeV4 = registry.beforeV5.before(sinceV4)
	registry.beforeV3 = registry.beforeV4.before(sinceV3)
	return registry, nil
}

func schemaOf(value any, file string) *Schema {
	text := value.(map[string]any)
	parts := strings.Split(strings.TrimSuffix(file, ".avsc"), ".v")
	version, _ := strconv.Atoi(parts[len(parts)-1])
	var form strings.Builder
	root := parseNode(value, "", map[string]*node{}, &form)
	header := binary.LittleEndian.AppendUint64([]byte{0xc3, 0x01}, crc64([]byte(form.String())))
	digest := sha256.Sum256([]byte(canonical(value)))
	return &Schema{file, text["name"].(string), version, header, digest[:], form.String(), root}
}

func fullName(text map[string]any, namespace string) (string, string) {
	name := text["name"].(string)
	if at := strings.LastIndex(name, "."); at >= 0 {
		return name, name[:at]
	}
	if own, ok := text["namespace"].(string); ok {
		namespace = own
	}
	if namespace == "" {
		return name, ""
	}
	return namespace + "." + name, namespace
}

// parseNode reads a type and writes its parsing canonical form.
func parseNode(value any, namespace string, named map[string]*node, form *strings.Builder) *node {
	if name, ok := value.(string); ok {
		form.WriteString(`"` + name + `"`)
		if known := named[name]; known != nil {
			return known
		}
		return &node{kind: name}
	}
	if types, ok := value.([]any); ok {
		one := &node{kind: "union"}
		form.WriteByte('[')
		for i, each := range types {
			if i > 0 {
				form.WriteByte(',')
			}
			one.types = append(one.types, parseNode(each, namespace, named, form))
		}
		form.WriteByte(']')
		return one
	}
	text := value.(map[string]any)
	if kind, ok := text["type"].(string); ok {
		return parseComplex(kind, text, namespace, named, form)
	}
	return parseNode(text["type"], namespace, named, form)
}

func parseComplex(kind string, text map[string]any, namespace string, named map[string]*node, form *strings.Builder) *node {
	one := &node{kind: kind}
	switch kind {
	case "record":
		one.name, namespace = fullName(text, namespace)
		named[one.name] = one
		form.WriteString(`{"name":"` + one.name + `","type":"record","fields":[`)
		for i, item := range text["fields"].([]any) {
			each := item.(map[string]any)
			if i > 0 {
				form.WriteByte(',')
			}
			form.WriteString(`{"name":"` + each["name"].(string) + `","type":`)
			one.fields = append(one.fields, field{each["name"].(string), parseNode(each["type"], namespace, named, form)})
			form.WriteByte('}')
		}
		form.WriteString("]}")
	case "enum":
		one.name, _ = fullName(text, namespace)
		named[one.name] = one
		for _, symbol := range text["symbols"].([]any) {
			one.symbols = append(one.symbols, symbol.(string))
		}
		form.WriteString(`{"name":"` + one.name + `","type":"enum","symbols":["` + strings.Join(one.symbols, `","`) + `"]}`)
	case "array":
		form.WriteString(`{"type":"array","items":`)
		one.items = parseNode(text["items"], namespace, named, form)
		form.WriteByte('}')
	case "map":
		form.WriteString(`{"type":"map","values":`)
		one.items = parseNode(text["values"], namespace, named, form)
		form.WriteByte('}')
	default:
		form.WriteString(`"` + kind + `"`)
		one.isTime = text["logicalType"] == "timestamp-millis"
	}
	return one
}

// schema gives the version of a record; 0 for the newest.
func (registry *Registry) schema(name string, version int) *Schema {
	var found *Schema
	for _, one := range registry.all {
		if one.Name == name && (version == one.Version || version == 0 && (found == nil || found.Version < one.Version)) {
			found = one
		}
	}
	if found == nil {
		panic("no schema " + name)
	}
	return found
}

func unknownSchema(header []byte) *refusal {
	return &refusal{"unknown_schema", why(105, hex.EncodeToString(header[2:10]))}
}

func (registry *Registry) schemaIn(data []byte) (*Schema, error) {
	if len(data) < 10 || data[0] != 0xc3 || data[1] != 0x01 {
		return nil, undecodable(104)
	}
	schema := registry.byHeader[string(data[:10])]
	if schema == nil {
		return nil, unknownSchema(data)
	}
	return schema, nil
}

// decode reads one whole record, header included.
func (registry *Registry) decode(data []byte) (schema *Schema, record Record, err error) {
	schema, err = registry.schemaIn(data)
	if err != nil {
		return nil, nil, err
	}
	reader := &reader{data: data, at: 10, items: -1}
	if schema.Name == "ClientUpdate" && len(data) > uncountedBytes {
		reader.items = itemsMax
	}
	defer func() {
		if caught := recover(); caught != nil {
			if caught != errMalformed {
				panic(caught)
			}
			name := schema.Name
			schema, record, err = nil, nil, undecodable(108, name)
		}
	}()
	record = reader.read(schema.root).(Record)
	if left := len(data) - reader.at; left > 0 {
		return nil, nil, undecodable(109, int64(left), schema.Name)
	}
	return schema, record, nil
}

var errMalformed = errors.New("malformed")

type reader struct {
	data  []byte
	at    int
	items int // left; -1 where they are not counted
}

func (r *reader) item() {
	if r.items == 0 {
		panic(errMalformed)
	}
	if r.items > 0 {
		r.items--
	}
}

func (r *reader) take(size int64) []byte {
	r.item()
	if size < 0 || size > int64(len(r.data)-r.at) {
		panic(errMalformed)
	}
	part := r.data[r.at : r.at+int(size)]
	r.at += int(size)
	return part
}

func (r *reader) long() int64 {
	var number uint64
	for shift := 0; ; shift += 7 {
		b := r.take(1)[0]
		if shift > 63 {
			panic(errMalformed)
		}
		number |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return int64(number>>1) ^ -int64(number&1)
		}
	}
}

func (r *reader) text() string {
	part := r.take(r.long())
	if !utf8.Valid(part) {
		panic(errMalformed)
	}
	return string(part)
}

func (r *reader) blocks(each func()) {
	for {
		count := r.long()
		if count == 0 {
			return
		}
		if count < 0 {
			count = -count
			r.long()
		}
		for i := int64(0); i < count; i++ {
			each()
		}
	}
}

func (r *reader) read(one *node) any {
	switch one.kind {
	case "long", "int":
		number := r.long()
		if one.isTime && (number < createdMin || number > createdMax) {
			panic(errMalformed)
		}
		return number
	case "double":
		return math.Float64frombits(binary.LittleEndian.Uint64(r.take(8)))
	case "string":
		return r.text()
	case "bytes":
		return r.take(r.long())
	case "enum":
		index := r.long()
		if index < 0 {
			index += int64(len(one.symbols))
		}
		if index < 0 || index >= int64(len(one.symbols)) {
			panic(errMalformed)
		}
		return one.symbols[index]
	case "array":
		found := []any{}
		r.blocks(func() { found = append(found, r.read(one.items)) })
		return found
	case "map":
		found := Map{}
		r.blocks(func() {
			found.Keys = append(found.Keys, r.text())
			found.Values = append(found.Values, r.read(one.items))
		})
		return found
	case "record":
		found := Record{}
		for _, each := range one.fields {
			found[each.name] = r.read(each.node)
		}
		return found
	case "union":
		index := r.long()
		if index < 0 || index >= int64(len(one.types)) {
			panic(errMalformed)
		}
		return Branch{index, r.read(one.types[index])}
	default:
		panic("no type " + one.kind)
	}
}

// encode writes a record by one version of its schema (0: the newest), header included.
func (registry *Registry) encode(name string, version int, record Record) []byte {
	schema := registry.schema(name, version)
	out := bytes.NewBuffer(append([]byte{}, schema.Header...))
	write(out, schema.root, record)
	return out.Bytes()
}

func writeLong(out *bytes.Buffer, number int64) {
	zigzag := uint64(number<<1) ^ uint64(number>>63)
	for zigzag >= 0x80 {
		out.WriteByte(byte(zigzag) | 0x80)
		zigzag >>= 7
	}
	out.WriteByte(byte(zigzag))
}

func writeBytes(out *bytes.Buffer, data []byte) {
	writeLong(out, int64(len(data)))
	out.Write(data)
}

func write(out *bytes.Buffer, one *node, value any) {
	switch one.kind {
	case "long", "int":
		writeLong(out, value.(int64))
	case "double":
		out.Write(binary.LittleEndian.AppendUint64(nil, math.Float64bits(value.(float64))))
	case "string":
		writeBytes(out, []byte(value.(string)))
	case "bytes":
		writeBytes(out, value.([]byte))
	case "enum":
		for index, symbol := range one.symbols {
			if symbol == value.(string) {
				writeLong(out, int64(index))
				return
			}
		}
		panic("no symbol " + value.(string))
	case "array":
		items := value.([]any)
		if len(items) > 0 {
			writeLong(out, int64(len(items)))
			for _, item := range items {
				write(out, one.items, item)
			}
		}
		writeLong(out, 0)
	case "map":
		entries := value.(Map)
		if len(entries.Keys) > 0 {
			writeLong(out, int64(len(entries.Keys)))
			for i, key := range entries.Keys {
				writeBytes(out, []byte(key))
				write(out, one.items, entries.Values[i])
			}
		}
		writeLong(out, 0)
	case "union":
		branch := value.(Branch)
		writeLong(out, branch.Index)
		write(out, one.types[branch.Index], branch.Value)
	case "record":
		record := value.(Record)
		for _, each := range one.fields {
			write(out, each.node, record[each.name])
		}
	default:
		panic("no type " + one.kind)
	}
}
