"""The spawner: KubeSpawner that starts only what ``resolve`` grants."""

from __future__ import annotations

from typing import Any

from kubespawner import KubeSpawner
from tornado.web import HTTPError
from traitlets import Unicode, default

from hub.admission import RefusedRequest, judge
from hub.form import form_notes, form_options, form_profiles, render_form
from hub.policy import Policy
from hub.policy_file import SHIPPED, load_policy
from hub.quantity import QuantityError, cpus_number
from hub.resolve import Decision, Granted, Refused, resolve


class SidecarSpawner(KubeSpawner):  # type: ignore[misc]  # kubespawner has no type information
    """Offers the profiles of the user's groups, and turns a granted decision into KubeSpawner's settings.

    KubeSpawner's own handling of the options is not used: without a ``profile`` it validates nothing and applies the
    rest, and what it does not accept is an HTTP 500.
    """

    policy_file = Unicode(SHIPPED, config=True, help="The policy file; the shipped one by default.")

    user_options: dict[str, Any]

    enforced = True
    """Whether what starts the server holds it to its size."""

    granted: Decision | None = None
    """What this server was granted: set before the first await of a start, until its end is complete."""

    @property
    def policy(self) -> Policy:
        return load_policy(self.policy_file)

    @default("profile_list")
    def _offered_profiles(self) -> Any:
        return lambda spawner: form_profiles(spawner.group_names, spawner.policy, enforced=spawner.enforced)

    @default("delete_pvc")
    def _never_delete(self) -> bool:
        return False

    @default("apply_user_options")
    def _in_load_user_options(self) -> Any:
        return lambda _spawner, _options: None

    @property
    def group_names(self) -> list[str]:
        return [group.name for group in self.user.groups]

    def _options_from_form(self, formdata: dict[str, list[str]]) -> dict[str, object]:
        return form_options(formdata)

    def _render_options_form(self, profile_list: list[dict[str, Any]]) -> str:
        # Saved options that are refused by now, because a group was lost, would leave the form without a selection.
        saved = resolve(self.user.name, self.group_names, options=self.user_options, running={}, policy=self.policy)
        if isinstance(saved, Refused):
            self.user_options = {}
        form = render_form(
            profile_list,
            self.user_options,
            paths=self.additional_profile_form_template_paths,
            text=self.profile_form_template,
        )
        return str(form + form_notes(self.group_names, self.policy))

    async def load_user_options(self) -> None:
        """The decision for ``user_options`` is in force. Raises ``RefusedRequest`` (HTTP 4xx) if there is none.

        There is no await between the look at the user's other servers and the reservation.
        """
        answer = judge(self.user, self.name, self.user_options, self.policy)
        if isinstance(answer, Refused):
            raise RefusedRequest(answer)
        self.granted = answer.decision
        self._apply(answer)

    def _apply(self, answer: Granted) -> None:
        decision = answer.decision
        self.image = decision.image
        self.cpu_limit = self.cpu_guarantee = float(cpus_number(decision.size.millicpu))
        self.mem_limit = self.mem_guarantee = decision.size.memory_bytes
        resource = self.policy.profiles[decision.profile].gpu_resource
        gpus = {resource: str(decision.size.gpus)} if decision.size.gpus else {}
        self.extra_resource_limits = self.extra_resource_guarantees = gpus

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state()
        if self.granted is not None:
            state["granted"] = self.granted.to_json()
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        if "granted" in state:
            try:
                self.granted = Decision.from_json(state["granted"])
            except QuantityError as error:
                self.log.warning("%s: the stored decision cannot be read (%s)", self._log_name, error)

    def clear_state(self) -> None:
        super().clear_state()
        self.granted = None

    async def rename(self, old_name: str, new_name: str) -> None:  # noqa: ARG002  JupyterHub's signature
        """Always refused: the server's directory on Persist carries its name."""
        raise HTTPError(400, "a server keeps its name, because its backup is kept under it")
