"""The stream processors: regional worker, global merger, evaluator. Each ``build_app`` is one topology on one page."""
