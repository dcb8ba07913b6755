"""Where the data sets are fetched from, with the size and sha256 of every file.

GLUE: as huggingface/datasets (datasets/glue/dataset_infos.json) and, but for QQP, tensorflow/datasets (url_checksums/glue.txt)
publish them. SuperGLUE and SQuAD: huggingface/datasets (datasets/super_glue, squad, squad_v2: dataset_infos.json). We had no way to
fetch the files and confirm. IMDb: without them, since the archive could not be held against any; so it is put there by hand.
"""
from dataclasses import dataclass

GLUE_HOST = "https://dl.fbaipublicfiles.com/glue/data"
SENTEVAL_HOST = "https://dl.fbaipublicfiles.com/senteval/senteval_data"
SUPERGLUE_HOST = "https://dl.fbaipublicfiles.com/glue/superglue/data/v2"
IMDB_HOST = "https://ai.stanford.edu/~amaas/data/sentiment"
SQUAD_HOST = "https://rajpurkar.github.io/SQuAD-explorer/dataset"


@dataclass(frozen=True)
class Remote:
    """A file to fetch: its address, its size in bytes and its sha256 in hex; without these it is not fetched, but unpacked where it
    lies."""
    url: str
    size: int = 0
    sha256: str = ""

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[1]


# Per task: a zip or tar.gz with one folder, the file of each split, or (MRPC) the three files that the splits are assembled from.
SOURCES: tuple[tuple[str, tuple[Remote, ...]], ...] = (
    ("CoLA", (Remote(f"{GLUE_HOST}/CoLA.zip", 376971, "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff"),)),
    ("SST-2", (Remote(f"{GLUE_HOST}/SST-2.zip", 7439277, "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa"),)),
    ("MRPC", (
        Remote(f"{SENTEVAL_HOST}/msr_paraphrase_train.txt", 1047044, "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89"),
        Remote(f"{SENTEVAL_HOST}/msr_paraphrase_test.txt", 441275, "a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784"),
        Remote(f"{GLUE_HOST}/mrpc_dev_ids.tsv", 6222, "971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7"))),
    ("STS-B", (Remote(f"{GLUE_HOST}/STS-B.zip", 802872, "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85"),)),
    ("QQP", (Remote(f"{GLUE_HOST}/QQP-clean.zip", 41696084, "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0"),)),
    ("MNLI", (Remote(f"{GLUE_HOST}/MNLI.zip", 312783507, "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633"),)),
    ("QNLI", (Remote(f"{GLUE_HOST}/QNLIv2.zip", 10627589, "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5"),)),
    ("RTE", (Remote(f"{GLUE_HOST}/RTE.zip", 697150, "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee"),)),
    ("WNLI", (Remote(f"{GLUE_HOST}/WNLI.zip", 28999, "ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46"),)),
    ("AX", (Remote(f"{GLUE_HOST}/AX.tsv", 222257, "0e13510b1bb14436ff7e2ee82338f0efb0133ecf2e73507a697dc210db3f05fd"),)),
    ("BoolQ", (Remote(f"{SUPERGLUE_HOST}/BoolQ.zip", 4118001, "853fbe7922f70c59629f06a39e8d9ca440c3d740e760fd3b87a5ddf3dcba2436"),)),
    ("CB", (Remote(f"{SUPERGLUE_HOST}/CB.zip", 75482, "8d641383298d54554066ba1c93f56ae7410af75df621b90c63028806bbbbb535"),)),
    ("COPA", (Remote(f"{SUPERGLUE_HOST}/COPA.zip", 43986, "405906cddac74bc1e1ce8220f1107d1025b66a25ef10149d91b10bb30651125f"),)),
    ("MultiRC", (Remote(f"{SUPERGLUE_HOST}/MultiRC.zip", 1116225, "b3cd440856e72eb166b2edcd37b798455f1ebd51f2c3de64c0c2a4e1971d2737"),)),
    ("ReCoRD", (Remote(f"{SUPERGLUE_HOST}/ReCoRD.zip", 51757880, "30c7b651ab21b8bf8fab986495cd1084333010e040548f861b839eec0044ac18"),)),
    ("WiC", (Remote(f"{SUPERGLUE_HOST}/WiC.zip", 396213, "ee7e67f4ae9eafbf533780faa198e62167f3cda54256cdf261877be3c0e90900"),)),
    ("WSC", (Remote(f"{SUPERGLUE_HOST}/WSC.zip", 32751, "2ed6dfa94556b4a128ff0441efe365b2e883124e7e6aa00fb8d3a6cb1fd520a9"),)),
    ("AX-b", (Remote(f"{SUPERGLUE_HOST}/AX-b.zip", 33950, "43b45c55a273575c58a33cd68f10a971f83daa3aa223bfbc4077b92fbdf960b3"),)),
    ("AX-g", (Remote(f"{SUPERGLUE_HOST}/AX-g.zip", 10413, "2d4e00d3a7d23d2c3787ee4c1382cc81a72cb05a76fc9d78d142949247ed61b9"),)),
    ("SQuAD", (
        Remote(f"{SQUAD_HOST}/train-v1.1.json", 30288272, "3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"),
        Remote(f"{SQUAD_HOST}/dev-v1.1.json", 4854279, "95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9"))),
    ("SQuAD2", (
        Remote(f"{SQUAD_HOST}/train-v2.0.json", 42123633, "68dcfbb971bd3e96d5b46c7177b16c1a4e7d4bdef19fb204502738552dede002"),
        Remote(f"{SQUAD_HOST}/dev-v2.0.json", 4370528, "80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8"))),
    ("IMDb", (Remote(f"{IMDB_HOST}/aclImdb_v1.tar.gz"),)),
)
