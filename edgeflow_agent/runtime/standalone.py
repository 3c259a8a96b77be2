"""Serving one model without a server and without configuration."""

from __future__ import annotations

from edgeflow_agent.config import AgentConfig
from edgeflow_agent.inference import compiled, engine, slot, tensors, trial_load
from edgeflow_agent.runtime import process, sources


class Standalone:
    """One model, served from `start` to `stop`."""

    def __init__(self, config: AgentConfig, model: str) -> None:
        process.prepare()
        source = sources.find(model, config)
        folder = compiled.folder(config.state_dir) if config.compile else None
        optimised = engine.compiled_graph(
            source.path, providers=config.providers, compiled=folder, digest=source.digest
        )
        # In a child first: a file that hangs or eats memory gives an error instead of a dead terminal. What
        # has passed that has left its optimised form.
        if optimised is None or not optimised.is_whole():
            trial_load.trial_load(
                source.path,
                threads=config.threads,
                providers=config.providers,
                compiled=folder,
                digest=source.digest,
                meanwhile=_import_the_rest,
            )
            if optimised is not None:
                optimised.trust()
        serving = slot.load(
            source.path,
            model=source.model,
            declared=source.declared,
            threads=config.threads,
            providers=config.providers,
            compiled=folder,
            digest=source.digest,
        )
        from edgeflow_agent.runtime.collecting import Collector
        from edgeflow_agent.runtime.serving import ServingThread
        from edgeflow_agent.store.learned import LearnedBaselines

        self._slot = slot.Slot()
        self._slot.swap(serving)
        self._serving = ServingThread(config, self._slot, drift=lambda: self._collector.drift())
        self._collector = Collector(
            config,
            self._slot,
            self._serving.metrics,
            self._serving.observer,
            lambda _window: None,  # nobody to send it to: drift is told here
            learned=LearnedBaselines(config.state_dir / "learned"),
        )
        self.url = self._serving.url
        self.model = source.model
        self.providers = serving.engine.providers
        self.example_type, self.example = "application/json", tensors.example(serving.interface)
        if serving.steps is not None and serving.steps.takes_input:
            self.example_type, self.example = serving.steps.example()

    def start(self) -> None:
        """Begin to answer."""
        self._serving.start()
        self._collector.start()

    def alive(self) -> bool:
        """Whether requests can still be answered."""
        return self._serving.alive()

    def stop(self) -> None:
        """Answer what was asked, then end."""
        self._collector.stop()
        self._serving.stop()


def _import_the_rest() -> None:
    """An eighth of the time to the first answer, spent while another process loads the model."""
    from edgeflow_agent.runtime import collecting, serving  # noqa: F401
