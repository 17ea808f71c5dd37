package main

// A client: docs/contract.md, "A client, step by step", from the trained arrays on.

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
)

type updateRequest struct {
	Genesis     string               `json:"genesis"`
	Certificate string               `json:"certificate"`
	PrivateKey  string               `json:"private_key"`
	BaseVersion int64                `json:"base_version"`
	BaseSHA256  string               `json:"base_sha256"`
	UpdateID    string               `json:"update_id"`
	Codec       string               `json:"codec"`
	CreatedAtMs int64                `json:"created_at_ms"`
	Change      map[string][]float64 `json:"change"` // local − base of the weights, the values of buffers
	Examples    int64                `json:"num_examples"`
	WaitedS     float64              `json:"waited_s"` // for how long it has known the base
}

// encodeTensor rounds to the nearest level; how to round is the client's choice.
func encodeTensor(codec string, values []float64) (float64, []byte) {
	var data []byte
	if codec == "float32" {
		for _, x := range values {
			bits := math.Float32bits(float32(x))
			data = append(data, byte(bits), byte(bits>>8), byte(bits>>16), byte(bits>>24))
		}
		return 1, data
	}
	most := map[string]float64{"int8": 127, "int4": 7}[codec]
	largest := 0.0
	for _, x := range values {
		largest = math.Max(largest, math.Abs(x))
	}
	scale := largest / most
	if scale == 0 {
		return 0, make([]byte, dataBytes(codec, len(values)))
	}
	data = make([]byte, dataBytes(codec, len(values)))
	for i, x := range values {
		level := byte(int8(math.Max(-most, math.Min(most, math.RoundToEven(x/scale)))))
		if codec == "int8" {
			data[i] = level
		} else {
			data[i/2] |= (level & 15) << (4 * (i % 2))
		}
	}
	return scale, data
}

func clip(genesis *Genesis, layout *Layout, change map[string][]float64, most float64) {
	total := 0.0
	for _, one := range layout.Weights {
		for _, x := range change[one.Name] {
			total += x * x
		}
	}
	if norm := math.Sqrt(total); norm > most {
		for _, one := range layout.Weights {
			for i := range change[one.Name] {
				change[one.Name][i] *= most / norm
			}
		}
	}
}

func runUpdate(registry *Registry) error {
	var request updateRequest
	if err := json.NewDecoder(os.Stdin).Decode(&request); err != nil {
		return err
	}
	genesis, err := readGenesis([]byte(request.Genesis))
	if err != nil {
		return err
	}
	policy, err := readPolicy(genesis.Policy)
	if err != nil {
		return err
	}
	certificate, err := hex.DecodeString(request.Certificate)
	if err != nil {
		return err
	}
	seed, err := hex.DecodeString(request.PrivateKey)
	if err != nil {
		return err
	}
	trust, err := genesis.trust()
	if err != nil {
		return err
	}
	me, err := trust.identify(certificate)
	if err != nil {
		return err
	}
	turns := max64(0, int64(request.WaitedS/policy.Buffer.SecondsMax))
	selected := policy.Selection.selects(genesis.Task, request.BaseVersion, request.BaseSHA256, me.Name, me.Cohort, turns)
	if request.BaseVersion > 0 && !selected {
		return json.NewEncoder(os.Stdout).Encode(map[string]any{"selected": false})
	}
	layout := layoutOf(genesis.Layout)
	clip(genesis, layout, request.Change, policy.Updates.NormClip)
	tensors := []any{}
	for _, one := range layout.all() {
		codec := request.Codec
		if one.Section == "buffers" {
			codec = "float32"
		}
		scale, data := encodeTensor(codec, request.Change[one.Name])
		tensors = append(tensors, Record{"name": one.Name, "shape": anyOf(one.Shape), "scale": scale, "data": data})
	}
	version := 2
	if request.Codec == "int8" || request.Codec == "float32" {
		version = 1
	}
	payload := registry.encode("ClientUpdate", version, Record{
		"task": genesis.Task, "region": me.Region, "device_id": me.Name, "base_version": request.BaseVersion,
		"base_sha256": request.BaseSHA256, "update_id": request.UpdateID, "num_examples": max64(1, request.Examples), "local_loss": 0.5,
		"codec": request.Codec, "tensors": tensors, "client_metrics": Map{}, "created_at": request.CreatedAtMs,
	})
	value := registry.seal(trust.named, "ClientUpdate", payload, certificate, ed25519.NewKeyFromSeed(seed))
	partitions := genesis.Regions[me.Region].Partitions
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"topic":     fmt.Sprintf("fl.%s.updates.%s", genesis.Task, me.Region),
		"partition": partitionOf(me.Name, partitions),
		"key":       me.Name,
		"value":     hex.EncodeToString(value),
	})
}
