// A client and an auditor of Fluvial, written from schemas/README.md, documents.md, meaning.md and vectors/ alone.
//
//	stranger vectors SCHEMAS                          run every vector in SCHEMAS/vectors
//	stranger audit SCHEMAS FOLDER TASK GENESIS        recompute a recorded federation: FOLDER/topics, FOLDER/store
//	stranger update SCHEMAS                           sign the update that standard input describes, as JSON
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stranger:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("expected vectors, audit or update, and the folder of the schemas")
	}
	registry, err := loadSchemas(arguments[1])
	if err != nil {
		return err
	}
	switch command, rest := arguments[0], arguments[2:]; {
	case command == "vectors" && len(rest) == 0:
		return runVectors(registry, arguments[1])
	case command == "audit" && len(rest) == 3:
		return runAudit(registry, rest[0], rest[1], rest[2])
	case command == "update" && len(rest) == 0:
		return runUpdate(registry)
	default:
		return fmt.Errorf("no such command, or other arguments than it takes: %v", arguments)
	}
}
