package main

// What a worker signs beside its verdicts: schemas/README.md, "Heads".

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
)

const (
	headDomain     = "fluvial/verdicts-head/v1\x00"
	skippedMax     = 64
	certificateMax = 4096
	bodyBytes      = 8 + 8 + sha256.Size + 2
)

// Head is what a worker says of a stretch of offsets.
type Head struct {
	First, Next int64
	SHA256      []byte
	Skipped     []int64
	certificate []byte
	signature   []byte
}

// HeadPlace is the log that a head speaks of.
type HeadPlace struct {
	genesis   []byte
	region    string
	partition uint32
}

func (place HeadPlace) signed(body []byte) []byte {
	data := append([]byte(headDomain), place.genesis...)
	data = append(append(data, byte(len(place.region))), place.region...)
	return append(binary.LittleEndian.AppendUint32(data, place.partition), body...)
}

func (one *Head) body() []byte {
	data := binary.LittleEndian.AppendUint64(nil, uint64(one.First))
	data = append(binary.LittleEndian.AppendUint64(data, uint64(one.Next)), one.SHA256...)
	data = binary.LittleEndian.AppendUint16(data, uint16(len(one.Skipped)))
	for _, offset := range one.Skipped {
		data = binary.LittleEndian.AppendUint64(data, uint64(offset))
	}
	return data
}

// sealed is the header's value.
func (one *Head) sealed(certificate []byte, key ed25519.PrivateKey, place HeadPlace) []byte {
	data := binary.LittleEndian.AppendUint16([]byte{1}, uint16(len(certificate)))
	data = append(append(data, certificate...), one.body()...)
	return append(data, ed25519.Sign(key, place.signed(one.body()))...)
}

// readHead reads a header's value; nil where it is none.
func readHead(data []byte) *Head {
	if len(data) < 3 || data[0] != 1 {
		return nil
	}
	length := int(binary.LittleEndian.Uint16(data[1:]))
	rest := data[3:]
	if length > certificateMax || len(rest) < length+bodyBytes+ed25519.SignatureSize {
		return nil
	}
	body, signature := rest[length:len(rest)-ed25519.SignatureSize], rest[len(rest)-ed25519.SignatureSize:]
	count := int(binary.LittleEndian.Uint16(body[bodyBytes-2:]))
	if count > skippedMax || len(body) != bodyBytes+8*count {
		return nil
	}
	head := &Head{
		First: int64(binary.LittleEndian.Uint64(body)), Next: int64(binary.LittleEndian.Uint64(body[8:])),
		SHA256: body[16 : 16+sha256.Size], certificate: rest[:length], signature: signature,
	}
	if head.First < 0 || head.First >= head.Next {
		return nil
	}
	last := head.First - 1
	for at := bodyBytes; at < len(body); at += 8 {
		offset := int64(binary.LittleEndian.Uint64(body[at:]))
		if offset <= last || offset >= head.Next {
			return nil
		}
		head.Skipped, last = append(head.Skipped, offset), offset
	}
	return head
}

// voucher is the worker that signed a head for a place; nil for everybody else.
func (one *Head) voucher(trust *Trust, timestampMs int64, place HeadPlace) *Identity {
	signer, err := trust.identify(one.certificate)
	if err != nil || signer.Role != "worker" || signer.Region != place.region ||
		timestampMs < signer.NotBeforeMs || timestampMs > signer.NotAfterMs ||
		!ed25519.Verify(signer.Key, place.signed(one.body()), one.signature) {
		return nil
	}
	return signer
}

// verdictsSHA256 is the SHA-256 over the marks of verdicts.
func verdictsSHA256(registry *Registry, verdicts [][]byte) []byte {
	all := sha256.New()
	for _, value := range verdicts {
		if schema, record, err := registry.decode(value); err == nil && schema.Version == 1 {
			record["detail"] = ""
			value = registry.encode("Verdict", 1, record)
		}
		mark := sha256.Sum256(value)
		all.Write(mark[:16])
	}
	return all.Sum(nil)
}
